"""A call by LiveKit's OpenAI Realtime plugin, its session driven without a room. See `caller.py`.

python tests/serve/clients/livekit_call.py ws://127.0.0.1:8000/v1/realtime KEY
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterable

from caller import CHUNK, RATE, TASK, Seen, call
from livekit import rtc
from livekit.agents import llm
from livekit.plugins.openai.realtime import RealtimeModel

DELEGATE = {
    "name": "delegate",
    "description": "Works a sum out.",
    "parameters": {"type": "object", "properties": {"task": TASK}, "required": ["task"]},
}


async def main(url: str, key: str) -> None:
    """Holds the call."""
    seen = Seen()
    model = RealtimeModel(model="replica", base_url=url, api_key=key)
    session = model.session()
    reading: set[asyncio.Task] = set()
    playing: list[str] = []

    async def hear(message: llm.MessageGeneration) -> None:
        async for frame in message.audio_stream:
            seen.heard_ms += 1000 * frame.samples_per_channel / frame.sample_rate

    @llm.function_tool(raw_schema=DELEGATE)
    async def delegate(raw_arguments: dict[str, object]) -> str:
        return seen.work_out(raw_arguments["task"])

    async def work(calls: AsyncIterable[llm.FunctionCall]) -> None:
        """What an agent of it does with the calls of a response."""
        found = [
            llm.FunctionCallOutput(
                call_id=asked.call_id, output=await delegate(json.loads(asked.arguments)), is_error=False
            )
            async for asked in calls
        ]
        if found:
            context = session.chat_ctx.copy()
            context.items += found
            await session.update_chat_ctx(context)
            await session.generate_reply()

    async def read(generation: llm.GenerationCreatedEvent) -> None:
        working = asyncio.create_task(work(generation.function_stream))
        async for message in generation.message_stream:
            playing[:] = [message.message_id]

            hearing = asyncio.create_task(hear(message))
            transcript = "".join([part async for part in message.text_stream])
            await hearing
            playing.clear()
            seen.answers.append(transcript)
        await working

    def created(generation: llm.GenerationCreatedEvent) -> None:
        task = asyncio.create_task(read(generation))
        reading.add(task)
        task.add_done_callback(reading.discard)

    def spoken_over(event: llm.InputSpeechStartedEvent) -> None:
        if playing:  # what an agent of it does when it is spoken over
            seen.interruptions += 1
            session.interrupt()
            session.truncate(message_id=playing[0], modalities=["audio"], audio_end_ms=int(seen.heard_ms / 2))

    session.on("generation_created", created)
    session.on("input_speech_started", spoken_over)
    session.on("error", lambda error: seen.errors.append(str(error)))

    async def write(text: str) -> None:
        context = session.chat_ctx.copy()
        context.add_message(role="user", content=text)
        await session.update_chat_ctx(context)
        await session.generate_reply()

    async def send(sound: bytes) -> None:
        session.push_audio(rtc.AudioFrame(sound, RATE, 1, CHUNK))

    await session.update_instructions("Be kind.")
    await session.update_tools([delegate])
    try:
        await call(seen, send, write)
    finally:
        await session.aclose()
        await model.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
