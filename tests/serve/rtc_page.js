// A call over WebRTC, as a browser makes it. Keeps what it is told, and what it hears as pairs of time and peak, in ms.
async (key) => {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const peer = new RTCPeerConnection();
  const call = (window.call = { peer, events: [], heard: [] });
  peer.addTrack(stream.getAudioTracks()[0], stream);
  call.channel = peer.createDataChannel("oai-events");
  call.channel.onmessage = ({ data }) => call.events.push({ at: performance.now(), ...JSON.parse(data) });
  peer.ontrack = ({ streams: [voice], track }) => {
    const remote = voice ?? new MediaStream([track]);
    call.element = new Audio(); // without one, Chromium does not decode
    call.element.muted = true;
    call.element.srcObject = remote;
    const context = new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 1024 });
    context.createMediaStreamSource(remote).connect(analyser);
    const samples = new Float32Array(1024);
    setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      call.heard.push([performance.now(), Math.max(...samples.map(Math.abs))]);
    }, 10);
  };
  await peer.setLocalDescription(await peer.createOffer());
  const headers = { "Content-Type": "application/sdp", Authorization: `Bearer ${key}` };
  const answer = await fetch("/v1/realtime/calls", { method: "POST", body: peer.localDescription.sdp, headers });
  await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  return [answer.status, answer.headers.get("Location")];
}
