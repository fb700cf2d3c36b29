// A payload or result, whatever is in it: always as text, never as what it claims to be.

import { html, useState } from "./vendor/htm-preact.js";
import { bytes } from "./format.js";
import { Badge } from "./parts.js";

const SHOWN = 16 * 1024; // characters, until more is asked for
const HEX = 1024; // bytes of what is no text

export function Body({ body, name }) {
  const [isWhole, setWhole] = useState(false);
  if (!body) return html`<p class="quiet">None.</p>`;
  const { text, size, isText } = read(body);
  const shown = isWhole ? text : text.slice(0, SHOWN);
  return html`
    <p class="about">
      ${body.content_type && html`<${Badge}><bdi class="mono">${body.content_type}</bdi><//> `}
      <span class="quiet">${isText ? bytes(size) : `${bytes(size)}, not a text`}</span>
    </p>
    ${size > 0 && html`<pre class="body" tabindex="0" aria-label=${name}>${shown}</pre>`}
    ${shown.length < text.length &&
    html`<button type="button" class="small" onClick=${() => setWhole(true)}>Show all of it</button>`}
  `;
}

function read({ content_type = "", text, data }) {
  if (data === undefined) {
    const said = text ?? "";
    return { text: pretty(said, content_type), size: new TextEncoder().encode(said).length, isText: true };
  }
  const raw = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  try {
    const said = new TextDecoder("utf-8", { fatal: true }).decode(raw);
    return { text: pretty(said, content_type), size: raw.length, isText: true };
  } catch {
    return { text: hex(raw.subarray(0, HEX)) + (raw.length > HEX ? "\n…" : ""), size: raw.length, isText: false };
  }
}

function hex(raw) {
  const lines = [];
  for (let at = 0; at < raw.length; at += 16) {
    lines.push([...raw.subarray(at, at + 16)].map((byte) => byte.toString(16).padStart(2, "0")).join(" "));
  }
  return lines.join("\n");
}

// JSON with lines and indents of its own. Nothing but white space changes: JSON.parse would round large numbers.
function pretty(text, contentType) {
  if (!/\bjson\b/i.test(contentType) && !/^\s*[[{]/.test(text)) return text;
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  return text.replace(/("(?:[^"\\]|\\.)*")|\s+|[[{]\s*[\]}]|[[\]{},:]/g, (part, quoted) => {
    if (quoted) return quoted;
    if (/^[[{]/.test(part) && part.length > 1) return part[0] + part.at(-1);
    switch (part) {
      case "[":
      case "{":
        depth += 1;
        return part + line();
      case "]":
      case "}":
        depth -= 1;
        return line() + part;
      case ",":
        return part + line();
      case ":":
        return ": ";
    }
    return "";
  });
}
