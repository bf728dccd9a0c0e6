// What the microphone gives, as pieces of 40 ms of 16-bit samples at 16 kHz.

import { Resampler } from "./resampler.js";

const RATE = 16000;
const PIECE = 640;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.peak = 0;
  }

  process([input]) {
    const channel = input[0] ?? new Float32Array(128); // no input is silence, and its time passes too
    for (const sample of this.resampler.push(channel)) {
      const level = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      this.peak = Math.max(this.peak, Math.abs(sample));
      this.piece[this.filled++] = level;
      if (this.filled === PIECE) this.give();
    }
    return true;
  }

  give() {
    this.port.postMessage({ samples: this.piece, peak: this.peak }, [this.piece.buffer]);
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.peak = 0;
  }
}

registerProcessor("capture", Capture);
