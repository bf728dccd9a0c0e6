// What a person sees and does: ties the microphone, the camera, the voice, the connection and the picture together.

import { Camera } from "./camera.js";
import { Connection } from "./connection.js";
import { Log } from "./log.js";
import { Microphone } from "./microphone.js";
import { Player } from "./player.js";
import { Replies } from "./replies.js";
import { Stamps } from "./stamps.js";
import { Tasks } from "./tasks.js";
import { Timeline } from "./timeline.js";
import { decode, encode } from "./wire.js";

const get = (id) => document.getElementById(id);
const SAID = 3000; // ms
const milliseconds = (value) => (value === null ? "–" : `${Math.round(value)} ms`);

const timeline = new Timeline(get("timeline"));
const log = new Log(get("words"), get("announced"));
const tasks = new Tasks(get("tasks-section"), get("tasks"), (number, state) => timeline.task(number, state, performance.now()));
const player = new Player({ began: spoken, dropped: (index) => waiting.delete(index), played, level, waits });
const microphone = new Microphone(heard, () => problem("The microphone is gone. Choose another under Settings."));
const camera = new Camera(get("preview"), (image) => say([{ type: "input_image", image_url: image }]));
const connection = new Connection({ open, resumed, turn, queue, lost, refused, error: problem });

let stamps = new Stamps();
let replies = new Replies();
let size = null; // of the pictures that the model sees
let running = false;
let again = 0; // until when it says that the connection is back, ms
let calls = 0; // begun or ended
let waiting = new Map(); // micro-turn whose sound waits → {text: words that begin in it, speaks}
let unsent = []; // what was written before the first sound
let answer = null; // ms
let silent = false; // without what sound needs of the server
let locked = null; // keeps a phone's screen on

function state(name, text) {
  if (get("state-text").textContent === text) return;
  // A screen reader that called out each change of turn would speak over the voice.
  // Nor need it be told of each try to come back.
  const turns = ["listening", "speaking"];
  const before = get("state").dataset.state;
  if (!(turns.includes(name) && turns.includes(before)) && !(name === "lost" && before === "lost")) log.announce(text);
  get("again").hidden = !["lost", "full"].includes(name);
  get("state").dataset.state = name;
  get("state-text").textContent = text;
}

function problem(message) {
  get("problem").hidden = !message;
  get("problem").textContent = message;
}

async function start() {
  const call = ++calls;
  running = true;
  problem("");
  get("call").textContent = "Stop";
  state("connecting", "Connecting");
  if (!window.isSecureContext) {
    problem(INSECURE);
    connection.open(get("key").value);
    return;
  }
  await sound(call);
  if (call !== calls) return;
  connection.open(get("key").value);
  await stay();
}

// Opens the voice and the microphone. A part of both comes from the server, which may be away just now.
async function sound(call) {
  silent = false;
  try {
    await player.open(Number(get("volume").value), get("speakers").value);
  } catch (error) {
    player.close();
    silent = error.name === "AbortError";
    problem(silent ? AWAY : `This browser cannot play the voice: ${error.message}`);
  }
  if (call === calls) await listen();
}

async function stay() {
  locked = await navigator.wakeLock?.request("screen").catch(() => null);
}

function stop(name = "idle", text = "Not connected") {
  calls++;
  running = false;
  connection.close();
  microphone.close();
  player.close();
  camera.close();
  locked?.release();
  get("call").textContent = "Start talking";
  press("mute", false);
  press("camera", false);
  enable(false);
  state(name, text);
}

function enable(on) {
  for (const id of ["text", "send"]) get(id).disabled = !on;
  get("camera").disabled = !(on && navigator.mediaDevices);
  get("mute").disabled = !(on && microphone.stream);
}

function press(id, on) {
  get(id).setAttribute("aria-pressed", String(on));
}

const pressed = (id) => get(id).getAttribute("aria-pressed") === "true";

const INSECURE =
  "Browsers allow sound only on pages with https, or of this machine itself. You can still write, and read what it says.";
const AWAY = "The server cannot be reached. Sound begins once it can.";
const DENIED = {
  NotAllowedError: "is not allowed. Allow it beside the address of the page, then start again.",
  NotFoundError: "is not there. Connect one, then start again.",
  OverconstrainedError: "that you chose is not there. Choose another under Settings.",
  NotReadableError: "is in use by another program. Close that, then start again.",
};

function denied(device, error) {
  return `The ${device} ${DENIED[error.name] ?? `does not work: ${error.message}`}`;
}

async function listen() {
  try {
    await microphone.open(get("microphones").value, get("headphones").checked);
    microphone.mute(pressed("mute"));
    await list();
  } catch (error) {
    silent ||= error.name === "AbortError";
    problem(silent ? AWAY : `${denied("microphone", error)} You can still write.`);
  }
}

async function list() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  for (const [id, kind] of [["microphones", "audioinput"], ["cameras", "videoinput"], ["speakers", "audiooutput"]]) {
    const chosen = get(id).value;
    const found = devices.filter((device) => device.kind === kind && device.deviceId && device.deviceId !== "default");
    const options = found.map((device, place) => new Option(device.label || `${kind} ${place + 1}`, device.deviceId));
    get(id).replaceChildren(new Option("Default", ""), ...options);
    get(id).value = found.some((device) => device.deviceId === chosen) ? chosen : "";
  }
  get("speakers-label").hidden = !Player.canChoose;
}

// The connection.

function open(session, anew) {
  stamps = new Stamps();
  replies = new Replies();
  waiting = new Map();
  size = session.duplex.video;
  get("model").textContent = `with ${session.model}`;
  player.begin();
  tasks.clear();
  timeline.forget_tasks();
  if (anew) log.note("The conversation before is over: it could not be gone on with. This is a new one.");
  if (["queue", "full", "lost"].includes(get("state").dataset.state)) problem(microphone.stream ? "" : "Without a microphone, you can still write.");
  enable(true);
  state("listening", "Listening");
  if (silent) {
    problem("");
    sound(calls).then(() => enable(connection.live));
  }
}

// The same session goes on. What was missed comes next, and is played as far as it is not too late.
function resumed() {
  stamps.resume(performance.now());
  enable(true);
  again = performance.now() + SAID;
}

function turn(event) {
  const now = performance.now();
  const speaks = event.gate === "SPEAK";
  answer = stamps.answered(event.index, event.input.late, now) ?? answer;
  timeline.gate(speaks, now);
  waiting.set(event.index, { text: event.text, speaks });
  if (!player.turn(event.index, event.gate, decode(event.audio))) spoken(event.index);
  log.show(event.display);
  tasks.turn(event.tasks, event.results);
  for (const { message } of event.notices ?? []) log.note(`${message[0].toUpperCase()}${message.slice(1)}.`);
  timeline.note("model", event.display && `[${event.display.trim()}]`, now);
  state(speaks ? "speaking" : "listening", (speaks ? "Speaking" : "Listening") + (now < again ? " again" : ""));
  const { missing, late } = event.input;
  get("answer").textContent = milliseconds(answer);
  get("lost").textContent = milliseconds(microphone.stream ? Math.max(missing, late) / 16 : null);
}

function queue(position, wait, placed) {
  const seconds = Math.round(wait / 1000);
  if (placed) {
    state("queue", `Every place is taken: you are number ${position} in line`);
    problem(`Trying again every ${seconds} seconds. Keep this page open to keep your place.`);
  } else {
    state("full", "Every place is taken, and the line is full");
    problem(`Trying again in ${seconds} seconds.`);
  }
}

// It goes on trying. What was still to be heard is not.
function lost(wait, before) {
  enable(false);
  player.clear();
  log.pause();
  const what = before ? "Connection lost" : "The server cannot be reached";
  state("lost", `${what}: trying again in ${(wait / 1000).toFixed(1)} s`);
}

function refused(message) {
  stop("refused", "Stopped");
  problem(message);
}

// The session's time begins with the first input: let that be sound, where there is any.
const begun = () => stamps.next || !microphone.stream;

function say(content) {
  if (begun()) connection.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
}

function write() {
  if (begun()) for (const text of unsent.splice(0)) say([{ type: "input_text", text }]);
}

// The microphone and the voice.

function heard({ samples, peak }) {
  const now = performance.now();
  timeline.level("user", peak, now);
  if (!connection.live) return;
  replies.user(peak, now);
  connection.send({ type: "duplex.input", offset: stamps.place(samples.length, now), audio: encode(samples) }, { kept: false });
  write();
}

function spoken(index) {
  const said = waiting.get(index);
  if (!said) return;
  waiting.delete(index);
  log.speak(said.text);
  timeline.note("model", said.text, performance.now());
  if (!said.speaks) log.pause();
}

function played(index, samples) {
  connection.send({ type: "duplex.played", index, samples }, { later: true });
}

function level(peak) {
  const now = performance.now();
  timeline.level("model", peak, now);
  const delay = replies.model(peak, now);
  if (delay !== null) get("reply").textContent = milliseconds(delay);
}

function waits(held) {
  get("queue").textContent = milliseconds(held);
  get("total").textContent = milliseconds(answer === null ? null : answer + held + 1000 * player.latency);
}

// What people do.

get("again").onclick = () => connection.hurry();
addEventListener("online", () => connection.hurry());

get("call").onclick = () => (running ? stop() : start());

get("mute").onclick = () => {
  press("mute", !pressed("mute"));
  microphone.mute(pressed("mute"));
};

get("camera").onclick = async () => {
  if (camera.on) {
    camera.close();
  } else {
    try {
      await camera.open(get("cameras").value, size);
      await list();
    } catch (error) {
      problem(denied("camera", error));
    }
  }
  press("camera", camera.on);
};

get("volume").oninput = () => (player.volume = Number(get("volume").value));

get("write").onsubmit = (event) => {
  event.preventDefault();
  const text = get("text").value.trim();
  if (!text) return;
  unsent.push(text);
  write();
  log.wrote(text);
  timeline.note("user", text, performance.now());
  get("text").value = "";
};

get("microphones").onchange = get("headphones").onchange = () => microphone.stream && listen();
get("cameras").onchange = () => camera.on && camera.open(get("cameras").value, size).catch((e) => problem(denied("camera", e)));
get("speakers").onchange = () => player.use(get("speakers").value).catch((e) => problem(denied("speaker", e)));
navigator.mediaDevices?.addEventListener("devicechange", list);

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !running) return;
  microphone.resume(); // phones stop sound behind a locked screen
  player.resume();
  connection.hurry(); // a page that is hidden has its timers slowed down
  stay(); // the browser lets go of it when the page is hidden
});

if (navigator.audioSession) navigator.audioSession.type = "play-and-record"; // or iPhones choose the ear piece
if (!window.isSecureContext) problem(INSECURE);
