// The camera: a picture of the size that the model sees, five times a second.

const EVERY = 200; // ms
const QUALITY = 0.9;

export class Camera {
  // video: the element that shows it. seen: called with each picture, as a data: URL.
  constructor(video, seen) {
    this.video = video;
    this.seen = seen;
    this.asked = 0;
    this.canvas = document.createElement("canvas");
  }

  // size: {width, height} in pixels. Throws what getUserMedia throws.
  async open(deviceId, size) {
    const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
    const asked = ++this.asked;
    const stream = await navigator.mediaDevices.getUserMedia({ video: { ...which, width: 320, height: 240 } });
    if (asked !== this.asked) {
      for (const track of stream.getTracks()) track.stop(); // closed while the person made up their mind
      return;
    }
    this.close();
    Object.assign(this.canvas, size);
    this.stream = this.video.srcObject = stream;
    this.video.hidden = false;
    await this.video.play();
    this.timer = setInterval(() => this.look(), EVERY);
  }

  get on() {
    return Boolean(this.stream);
  }

  look() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width || document.hidden) return;
    // The middle of the picture, in the shape of the model's.
    const scale = Math.min(width / this.canvas.width, height / this.canvas.height);
    const [w, h] = [this.canvas.width * scale, this.canvas.height * scale];
    const context = this.canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(this.video, (width - w) / 2, (height - h) / 2, w, h, 0, 0, this.canvas.width, this.canvas.height);
    this.seen(this.canvas.toDataURL("image/jpeg", QUALITY));
  }

  close() {
    this.asked++;
    clearInterval(this.timer);
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = this.video.srcObject = null;
    this.video.hidden = true;
  }
}
