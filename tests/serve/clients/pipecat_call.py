"""A call by Pipecat's OpenAI Realtime service in a pipeline of its own. See `caller.py`.

python tests/serve/clients/pipecat_call.py ws://127.0.0.1:8000/v1/realtime KEY
"""

import asyncio
import sys

from caller import MILLISECOND, RATE, TASK, Seen, call
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner


class Ear(FrameProcessor):
    """Stands where the loudspeaker stands."""

    def __init__(self, seen: Seen) -> None:
        """Fills in `seen`."""
        super().__init__()
        self._seen, self._transcript = seen, ""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes note of a frame and hands it on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self._seen.heard_ms += len(frame.audio) / MILLISECOND
        elif isinstance(frame, TTSTextFrame):
            self._transcript += frame.text
        elif isinstance(frame, LLMFullResponseEndFrame) and self._transcript:
            self._seen.answers.append(self._transcript.strip())
            self._transcript = ""
        elif isinstance(frame, InterruptionFrame):
            self._seen.interruptions += 1
        await self.push_frame(frame, direction)


async def main(url: str, key: str) -> None:
    """Holds the call."""
    seen = Seen()

    async def delegate(params: FunctionCallParams) -> None:
        await params.result_callback(seen.work_out(params.arguments["task"]))

    function = FunctionSchema("delegate", "Works a sum out.", {"task": TASK}, ["task"], handler=delegate)
    context = LLMContext(tools=[function])
    service = OpenAIRealtimeLLMService(api_key=key, base_url=url)
    pair = LLMContextAggregatorPair(context)
    worker = PipelineWorker(Pipeline([pair.user(), service, Ear(seen), pair.assistant()]))

    @service.event_handler("on_error")
    async def on_error(processor: FrameProcessor, error: ErrorFrame) -> None:
        seen.errors.append(str(error))

    async def write(text: str) -> None:
        if not context.messages:
            context.add_message({"role": "user", "content": text})
            await worker.queue_frame(LLMRunFrame())
            return
        # Of messages added to a session that runs, it makes the system's; those of the user it thinks are spoken.
        said = events.ConversationItem(type="message", role="user", content=[{"type": "input_text", "text": text}])
        await service.send_client_event(events.ConversationItemCreateEvent(item=said))

    async def send(sound: bytes) -> None:
        await worker.queue_frame(InputAudioRawFrame(audio=sound, sample_rate=RATE, num_channels=1))

    async def hold() -> None:
        try:
            await call(seen, send, write)
        finally:
            await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    holding = asyncio.create_task(hold())
    await runner.run()
    await holding


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
