// The WebSocket: opens it, comes back to the same session when it is lost, and waits in line when the server is full.
// It tries for as long as it is not closed, less and less often.

const FIRST_WAIT = 500; // ms
const LONGEST_WAIT = 15_000;
const LONGEST_OUTSIDE = 60_000; // where not even the line has room
const UNLIKE = 0.25; // part of a wait that is left to chance, so that not all pages come back at once
const SILENCE = 5000; // ms without a micro-turn after which a connection is taken for dead
const OPENING = 10_000; // ms without a first event
const UNHEARD = 100; // events kept until it is known that they arrived
const GOODBYE = 1000; // close codes
const BROKEN = 1011;
const STALLED = 4000; // no goodbye: the session is held
const TAKEN_OVER = 4001;
const FULL = ["server_full", "server_overloaded"]; // codes of errors that have a place in line
// To come back at once is of no use: what a person is told, or null for what the server says.
const FINAL = {
  too_many_sessions:
    "You have as many conversations as one person may have here. End one, in another window or on another device, then " +
    "start again. One that was cut off counts for half a minute more.",
  session_expired: null,
  rate_limit_exceeded: null,
};

const AUTHORITY = {
  401: "The server asks for an API key, and this one is missing or wrong. Enter it under Settings.",
  403: "The server does not let this page connect. Open the page from the server itself.",
};

export class Connection {
  // on: {open(session, whether it takes the place of one that is gone), resumed(), turn(micro_turn),
  // queue(position, ms, whether there is a place in line), lost(ms, whether there was a connection before), refused(message), error(message)}.
  constructor(on) {
    this.on = on;
    this.closed = true;
  }

  open(key) {
    this.key = key;
    this.closed = false;
    this.tries = 0;
    this.ticket = "";
    this.token = ""; // of the session, to come back with
    this.begun = false; // whether there has been a session
    this.dial();
  }

  close() {
    this.closed = true;
    this.token = "";
    clearTimeout(this.timer);
    this.hang();
  }

  // Ends the socket, if there is one, and hears no more of it.
  hang(code = GOODBYE) {
    clearTimeout(this.silence);
    if (this.socket) this.socket.onmessage = this.socket.onclose = null;
    this.socket?.close(code);
    this.socket = null;
    this.live = false;
  }

  // Tries now instead of later; nothing where it does not wait.
  hurry() {
    if (this.closed || !this.waits) return;
    this.tries = 0;
    this.dial();
  }

  // Sends an event, if there is a connection. What is `kept` is sent again if the connection breaks before it arrives;
  // sound is not, as it would come too late to be heard. What may come `later` waits for a session that is to go on.
  send(event, { kept = true, later = false } = {}) {
    const open = this.live && this.socket?.readyState === WebSocket.OPEN;
    if (!open && !(later && this.token)) return;
    if (kept) {
      event = { ...event, event_id: String(++this.sent) };
      this.unheard.push(event);
      if (this.unheard.length > UNHEARD) this.unheard.shift();
    }
    if (open) this.socket.send(JSON.stringify(event));
  }

  dial() {
    clearTimeout(this.timer);
    this.waits = false;
    this.silence = setTimeout(() => this.stalled(), OPENING);
    const url = new URL("v1/realtime?duplex=1", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.token) {
      url.searchParams.set("resume", this.token);
      url.searchParams.set("after", this.last);
    } else if (this.ticket) {
      url.searchParams.set("ticket", this.ticket);
    }
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
    this.socket.onclose = (closed) => this.ended(closed);
  }

  receive(event) {
    this.last = event.event_id;
    if (event.type === "session.created") {
      clearTimeout(this.silence);
      this.live = true;
      this.tries = this.sent = 0;
      this.ticket = "";
      this.unheard = [];
      this.token = event.session.resume?.token ?? "";
      this.on.open(event.session, this.begun);
      this.begun = true;
    } else if (event.type === "session.resumed") {
      this.live = true;
      this.tries = 0;
      clearTimeout(this.silence);
      this.unheard = this.unheard.filter(({ event_id }) => Number(event_id) > Number(event.after));
      for (const unheard of this.unheard) this.socket.send(JSON.stringify(unheard));
      this.on.resumed();
    } else if (event.type === "duplex.micro_turn") {
      clearTimeout(this.silence);
      this.silence = setTimeout(() => this.stalled(), SILENCE);
      this.on.turn(event);
    } else if (event.type === "error" && event.error.code.startsWith("resume_")) {
      this.token = ""; // too late: begin anew, at once
      this.again = 0;
    } else if (event.type === "error" && FULL.includes(event.error.code)) {
      const { ticket, retry_after_ms: wait, queue_position: position } = event.error;
      this.ticket = ticket;
      if (ticket) this.tries = 0;
      this.again = ticket ? wait : Math.min(LONGEST_OUTSIDE, wait * 2 ** Math.min(this.tries++, 10));
      this.waits = !ticket;
      this.on.queue(position, this.again, Boolean(ticket));
    } else if (event.type === "error" && event.error.code in FINAL) {
      this.refuse(FINAL[event.error.code] ?? event.error.message);
    } else if (event.type === "error") {
      this.on.error(event.error.message);
    }
  }

  // A network that went away says nothing: the socket stays open for minutes.
  stalled() {
    this.hang(STALLED);
    this.lost();
  }

  async ended({ code, reason }) {
    clearTimeout(this.silence);
    if (code === TAKEN_OVER) {
      this.refuse("This conversation goes on in another window.");
      return;
    }
    if (reason === "session_idle") {
      this.refuse("Nothing was said or written for a while, so your place went to others. Start again when you like.");
      return;
    }
    if (this.again !== null) {
      this.timer = setTimeout(() => this.dial(), this.again);
      return;
    }
    if (code === BROKEN) this.token = "";
    if (!this.live) {
      const refusal = await this.refusal();
      if (this.closed) return;
      if (refusal) {
        this.refuse(refusal);
        return;
      }
    }
    this.lost();
  }

  lost() {
    this.live = false;
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(this.tries++, 10));
    const wait = longest * (1 - UNLIKE * Math.random());
    this.waits = true;
    this.timer = setTimeout(() => this.dial(), wait);
    this.on.lost(wait, this.begun);
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
