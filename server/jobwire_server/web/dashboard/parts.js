// What pages are made of. Text from outside goes through htm as text, always: nothing here builds markup of it.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { moment, relative, stateOf, words } from "./format.js";
import { link } from "./route.js";

export const State = ({ state }) => html`<span class="badge state-${state.toLowerCase()}">${words(state)}</span>`;
export const Badge = ({ kind = "plain", children }) => html`<span class="badge ${kind}">${children}</span>`;
export const Time = ({ at }) => html`<time datetime=${at} title=${moment(at)}>${relative(at)}</time>`;
// A text of somebody's own: whatever direction its letters have, it turns nothing around it.
export const Text = ({ children, mono }) => html`<bdi class=${mono ? "mono" : ""}>${children}</bdi>`;
export const JobLink = ({ id }) => html`<a class="mono" href=${link(["jobs", id])}>${id}</a>`;
export const QueueLink = ({ name }) => html`<a class="mono" href=${link(["queues", name])}>${name}</a>`;
export const JobState = ({ job }) => html`<${State} state=${stateOf(job)} />`;

export const Card = ({ title, aside, children, kind = "" }) => html`
  <section class="card ${kind}">
    ${title && html`<header><h2>${title}</h2>${aside}</header>`}
    ${children}
  </section>
`;

// [[name, value], …]; what has no value is left out.
export const Facts = ({ facts }) => html`
  <dl class="facts">
    ${facts
      .filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false)
      .map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>
`;

export const Failure = ({ error }) =>
  error &&
  html`<div class="notice bad" role="alert">
    <strong>${error.message}</strong> ${error.reason && html`<code>${error.reason}</code>`}
  </div>`;

// What to do about a process that carries about all that it can. As in service/load.py.
export const Heavy = ({ server: { load = 0, store = {} } }) =>
  load >= 0.7 &&
  html`<div class="notice warn" role="status">
    <strong>This server was at work for ${Math.round(load * 100)} % of the last minute, and can do little more.</strong>${" "}
    ${["STORE_KIND_SQLITE", "STORE_KIND_MEMORY"].includes(store.kind)
      ? "On Redis or Valkey several processes share the work."
      : "Start more of them on the same store, or give this one a higher --processes."}
  </div>`;

export const Loading = () => html`<p class="loading" role="status">Loading…</p>`;

export const Empty = ({ title, children }) => html`<div class="empty"><h3>${title}</h3>${children}</div>`;

// A line to be pasted into a terminal.
export function Command({ line }) {
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(line);
    setCopied(true);
  };
  return html`<div class="command">
    <pre tabindex="0">${line}</pre>
    ${navigator.clipboard && html`<button type="button" class="small" onClick=${copy}>${isCopied ? "Copied" : "Copy"}</button>`}
  </div>`;
}

// Asks before something happens. `act` may throw: then the reason is shown, and the dialog stays.
export function Dialog({ title, verb, kind = "primary", act, close, children }) {
  const dialog = useRef(null);
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    return () => before?.focus?.();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await act();
      close();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`
    <dialog ref=${dialog} aria-labelledby="dialog-title" onClose=${close}>
      <form onSubmit=${submit}>
        <h2 id="dialog-title">${title}</h2>
        ${children}
        <${Failure} error=${error} />
        <div class="buttons">
          <button type="button" onClick=${close}>${verb ? "Keep as it is" : "Close"}</button>
          ${verb && html`<button type="submit" class=${kind} disabled=${isBusy}>${isBusy ? "Working…" : verb}</button>`}
        </div>
      </form>
    </dialog>
  `;
}

// A bar of 0 to 1, or of unknown length.
export const Bar = ({ fraction, label }) =>
  html`<progress value=${fraction ?? undefined} max="1" aria-label=${label}></progress>`;
