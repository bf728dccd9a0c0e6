// Before the page runs: keeps what its player puts out (24 kHz), when micro-turns come, and how the screen reader's
// regions change. Times are those of the player's clock, in seconds.
window.observed = { sound: [], turns: [], sockets: [], player: null };
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...more) {
  if (target instanceof AudioDestinationNode && this.context.sampleRate === 24000) {
    observed.player = this.context;
    this.context.audioWorklet.addModule("/recorder.js").then(() => {
      const recorder = new AudioWorkletNode(this.context, "recorder");
      recorder.port.onmessage = ({ data }) => observed.sound.push(data);
      connect.call(this, recorder);
    });
  }
  return connect.call(this, target, ...more);
};
const RealSocket = WebSocket;
window.WebSocket = class extends RealSocket {
  constructor(...given) {
    super(...given);
    observed.sockets.push(this);
    this.addEventListener("message", ({ data }) => {
      const event = JSON.parse(data);
      if (event.type !== "duplex.micro_turn") return;
      observed.turns.push({ index: event.index, gate: event.gate, at: observed.player?.currentTime });
    });
  }
};
