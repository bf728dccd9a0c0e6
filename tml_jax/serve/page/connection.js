// The WebSocket: opens it, comes back when it is lost, and waits in line when the server is full.

const FIRST_WAIT = 500; // ms
const LONGEST_WAIT = 8000;
const TRIES = 8;

const AUTHORITY = {
  401: "The server asks for an API key, and this one is missing or wrong. Enter it under Settings.",
  403: "The server does not let this page connect. Open the page from the server itself.",
};

export class Connection {
  // on: {open(session), turn(micro_turn), queue(position, ms), lost(ms), refused(message), error(message)}.
  constructor(on) {
    this.on = on;
    this.closed = true;
  }

  open(key) {
    this.key = key;
    this.closed = false;
    this.tries = 0;
    this.ticket = "";
    this.dial();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket?.close();
    this.socket = null;
  }

  // Sends an event, if there is a connection.
  send(event) {
    if (this.live && this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  dial() {
    const url = new URL("v1/realtime?duplex=1", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.ticket) url.searchParams.set("ticket", this.ticket);
    const protocols = this.key ? ["realtime", `openai-insecure-api-key.${this.key}`] : ["realtime"];
    this.live = false;
    this.again = null; // ms after which to come back, where the server has said so
    try {
      this.socket = new WebSocket(url, protocols);
    } catch {
      this.refuse("The API key has characters that a browser cannot send. Use another key.");
      return;
    }
    this.socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    this.socket.onclose = ({ reason }) => this.ended(reason);
  }

  receive(event) {
    if (this.closed) return;
    if (event.type === "session.created") {
      this.live = true;
      this.tries = 0;
      this.ticket = "";
      this.on.open(event.session);
    } else if (event.type === "duplex.micro_turn") {
      this.on.turn(event);
    } else if (event.type === "error" && event.error.code === "server_full") {
      this.ticket = event.error.ticket;
      this.again = event.error.retry_after_ms;
      this.on.queue(event.error.queue_position, this.again);
    } else if (event.type === "error") {
      this.on.error(event.error.message);
    }
  }

  async ended(reason) {
    if (this.closed) return;
    if (reason === "session_idle") {
      this.refuse("Nothing was said or written for a while, so your place went to others. Start again when you like.");
      return;
    }
    if (this.again !== null) {
      this.timer = setTimeout(() => this.dial(), this.again);
      return;
    }
    if (!this.live) {
      const refusal = await this.refusal();
      if (this.closed) return;
      if (refusal) {
        this.refuse(refusal);
        return;
      }
    }
    this.live = false;
    if (this.tries === TRIES) {
      this.refuse("The server cannot be reached. Check the network, or try again later.");
      return;
    }
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.tries++);
    this.on.lost(wait);
    this.timer = setTimeout(() => this.dial(), wait);
  }

  // Why the server does not open a WebSocket: browsers hide that from a page, so ask without one.
  async refusal() {
    try {
      const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
      const { status } = await fetch("v1/realtime", { headers, cache: "no-store" });
      return AUTHORITY[status] ?? null;
    } catch {
      return null;
    }
  }

  refuse(message) {
    this.close();
    this.on.refused(message);
  }
}
