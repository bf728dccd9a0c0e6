// Sound as base64 of 16-bit samples, little-endian as every machine with a browser is.

// Int16Array → text.
export function encode(samples) {
  return btoa(String.fromCharCode(...new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength)));
}

// Text → Float32Array from −1 to 1.
export function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer), (sample) => sample / 32768);
}
