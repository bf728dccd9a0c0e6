// A call by @openai/agents, as an application of it would hold one. `caller.py` has the plan of the call.
//
//   NODE_PATH=FOLDER/node_modules node tests/serve/clients/agents.cjs ws://127.0.0.1:8000/v1/realtime KEY

const { RealtimeAgent, RealtimeSession, OpenAIRealtimeWebSocket, tool } = require("@openai/agents/realtime");
const { z } = require("zod");

const [url, apiKey] = process.argv.slice(2);
const seen = { answers: [], tasks: [], heard_ms: 0, interruptions: 0, errors: [] };
let transcript = "";
let speaks = false;

async function until(what, true_) {
  const end = Date.now() + 30_000;
  while (!true_()) {
    if (Date.now() > end) throw new Error(`waited in vain: ${what}; seen: ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// 20 ms of PCM16 at 24 kHz, a tone of 300 Hz, so that pieces of it fit together.
const tone = Int16Array.from({ length: 480 }, (_, index) => 9000 * Math.sin((2 * Math.PI * 300 * index) / 24_000));
const silence = new Int16Array(480);

const delegate = tool({
  name: "delegate",
  description: "Works a sum out.",
  parameters: z.object({ task: z.string() }),
  execute: async ({ task }) => {
    seen.tasks.push(task);
    const [first, , second] = task.split(" ");
    return String(Number(first) + Number(second));
  },
});

async function main() {
  const transport = new OpenAIRealtimeWebSocket({ url });
  const agent = new RealtimeAgent({ name: "caller", instructions: "Be kind.", tools: [delegate] });
  const session = new RealtimeSession(agent, { transport });
  session.on("audio", (event) => (seen.heard_ms += event.data.byteLength / 48));
  session.on("audio_interrupted", () => (seen.interruptions += 1));
  session.on("error", (event) => seen.errors.push(JSON.stringify(event)));
  session.on("transport_event", (event) => {
    if (event.type === "response.output_audio_transcript.delta") transcript += event.delta;
    if (event.type === "response.done" && transcript) {
      seen.answers.push(transcript);
      transcript = "";
    }
  });
  await session.connect({ apiKey, url });

  const began = Date.now();
  let sent = 0;
  const microphone = setInterval(() => {
    for (; sent < (Date.now() - began) / 20; sent += 1) session.sendAudio((speaks ? tone : silence).buffer.slice(0));
  }, 10);

  session.sendMessage("hello");
  await until("an answer to what was written", () => seen.answers.length === 1);
  session.sendMessage("what is 3 + 4");
  await until("what the sum comes to", () => seen.answers.length === 2);
  seen.heard_ms = 0;
  speaks = true;
  await new Promise((resolve) => setTimeout(resolve, 1000));
  speaks = false;
  await until("the answer", () => seen.heard_ms >= 1000);
  speaks = true; // over it
  await until("the end of the answer", () => seen.answers.length === 3);
  await new Promise((resolve) => setTimeout(resolve, 500));
  speaks = false;
  await until("the last answer", () => seen.answers.at(-1) === "I am silent");
  clearInterval(microphone);
  const messages = session.history.filter((item) => item.type === "message");
  const said = messages.map((item) => `${item.role}: ${item.content[0].text ?? item.content[0].transcript}`);
  if (said[0] !== "user: hello") seen.errors.push(`a history that begins with ${said[0]}`);
  session.close();
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
