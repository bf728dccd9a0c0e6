// The model's voice.

const RATE = 24000;

export class Player {
  // on: {began(number of the micro-turn whose sound begins), dropped(number of one that will not be heard),
  // played(number of one that is over, samples of it that were played), level(peak, every 20 ms), waits(ms that the
  // sound which has just come waits for what came before it)}.
  constructor(on) {
    this.on = on;
    this.session = 0;
    this.speaking = false;
  }

  // Begins; in a click or a key press, as browsers demand.
  async open(volume, deviceId) {
    const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    this.context = context;
    this.gain = new GainNode(context, { gain: volume });
    this.gain.connect(context.destination);
    await context.audioWorklet.addModule("page/player_worklet.js");
    if (context !== this.context) return; // closed meanwhile
    this.node = new AudioWorkletNode(this.context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => {
      const { session, index } = data.began ?? data.dropped ?? data.played ?? this;
      if (session !== this.session) return; // of a session before
      if ("began" in data) this.on.began(index);
      else if ("dropped" in data) this.on.dropped(index);
      else if ("played" in data) this.on.played(index, data.samples);
      else if ("waits" in data) this.on.waits((1000 * data.waits) / RATE);
      else this.on.level(data.peak);
    };
    this.node.connect(this.gain);
    if (deviceId) await this.use(deviceId);
    await this.context.resume();
  }

  // The next micro-turn. When the model yields, what waits is dropped; the rest of its last sound fades in the
  // first silent one. Returns whether there will be word of it, as begun or dropped.
  turn(index, gate, samples) {
    const speech = gate === "SPEAK";
    const yields = this.speaking && !speech;
    this.speaking = speech;
    if (!this.node || (!speech && !yields)) return false;
    this.node.port.postMessage({ id: { session: this.session, index }, samples, speech, yields }, [samples.buffer]);
    return true;
  }

  // For another session: there will be no more word of what came before.
  begin() {
    this.clear();
    this.session++;
  }

  clear() {
    this.speaking = false;
    this.node?.port.postMessage({ clear: true });
  }

  set volume(value) {
    this.gain?.gain.setTargetAtTime(value, this.context.currentTime, 0.01);
  }

  // Seconds from here to the ear, as far as the browser knows.
  get latency() {
    return (this.context?.outputLatency || 0) + (this.context?.baseLatency || 0);
  }

  static get canChoose() {
    return "setSinkId" in AudioContext.prototype;
  }

  async use(deviceId) {
    await this.context?.setSinkId?.(deviceId);
  }

  resume() {
    this.context?.resume();
  }

  close() {
    this.context?.close();
    this.context = this.node = this.gain = null;
  }
}
