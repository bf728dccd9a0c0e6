// The microphone, as pieces of 16-bit sound at 16 kHz.

export class Microphone {
  // heard: called with each piece, ({samples: Int16Array, peak: 0 to 1}). ended: called when the device goes away.
  constructor(heard, ended) {
    this.heard = heard;
    this.ended = ended;
    this.asked = 0;
  }

  // Asks for the device and begins. raw: without echo cancellation and the like. Throws what getUserMedia throws.
  async open(deviceId, raw) {
    const asked = ++this.asked;
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: {
        deviceId: deviceId ? { exact: deviceId } : undefined,
        channelCount: 1,
        echoCancellation: !raw,
        noiseSuppression: !raw,
        autoGainControl: !raw,
      },
    });
    if (asked !== this.asked) {
      for (const track of stream.getTracks()) track.stop(); // closed, or asked again, while the person made up their mind
      return;
    }
    this.close();
    this.stream = stream;
    // At the device's own rate: some browsers refuse a microphone in a context of another.
    this.context = new AudioContext({ latencyHint: "interactive" });
    try {
      await this.context.audioWorklet.addModule("page/capture_worklet.js");
    } catch (error) {
      this.close(); // a microphone that nobody listens to would look as if it worked
      throw error;
    }
    const node = new AudioWorkletNode(this.context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }) => this.heard(data);
    this.context.createMediaStreamSource(stream).connect(node);
    node.connect(this.context.destination); // it is silent, but a node that leads nowhere may not run
    await this.context.resume();
    stream.getAudioTracks()[0].onended = () => this.ended();
  }

  mute(muted) {
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  resume() {
    this.context?.resume();
  }

  close() {
    this.asked++;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.context?.close();
    this.stream = this.context = null;
  }
}
