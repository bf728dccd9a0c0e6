// Hands on all that comes in, in blocks of 10 ms or so, with the time of each block's first sample.
class Recorder extends AudioWorkletProcessor {
  process([[samples]]) {
    if (samples) this.port.postMessage({ at: currentTime, samples: Array.from(samples) });
    return true;
  }
}
registerProcessor("recorder", Recorder);
