// The frame around every page: navigation, the state of the connection, the theme.

import { html, render, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { DeadLetters } from "./dead.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { useAway } from "./live.js";
import { Overview } from "./overview.js";
import { Queue } from "./queue.js";
import { go, link, useRoute } from "./route.js";
import { Server } from "./server.js";
import { Workers } from "./workers.js";

const PAGES = [
  ["", "Overview", () => Overview],
  ["jobs", "Jobs", (id) => (id ? Job : Jobs)],
  ["queues", null, () => Queue],
  ["workers", "Workers", () => Workers],
  ["dead", "Dead letters", () => DeadLetters],
  ["server", "Server", () => Server],
];

function App() {
  const { path, query } = useRoute();
  const [first = "", second] = path;
  const page = PAGES.find(([name]) => name === first);
  const main = useRef(null);
  const where = path.join("/");
  useEffect(() => {
    document.title = [second ?? page?.[1], "jobwire"].filter(Boolean).join(" · ");
    scrollTo(0, 0);
    if (where !== shownFirst) main.current.focus({ preventScroll: true });
  }, [where]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>Skip to content</a>
    <header class="top">
      <a class="brand" href="#/"><img src="dashboard/icon.svg" alt="" width="24" height="24" />jobwire</a>
      <nav aria-label="Pages">
        ${PAGES.filter(([, title]) => title).map(
          ([name, title]) =>
            html`<a key=${name} href=${link(name ? [name] : [])} aria-current=${name === first ? "page" : undefined}>${title}</a>`,
        )}
      </nav>
      <${FindJob} />
      <${Theme} />
    </header>
    <${Connection} />
    <main id="main" ref=${main} tabindex="-1" data-path=${where}>
      ${page
        ? html`<${page[2](second)} key=${where} name=${second} query=${query} />`
        : html`<h1>There is no such page</h1><p><a href="#/">Back to the overview</a></p>`}
    </main>
  `;
}

const shownFirst = location.hash.replace(/^#\/?/, "").split("?")[0];

function FindJob() {
  const find = (event) => {
    event.preventDefault();
    const id = event.target.elements.id.value.trim();
    if (id) go(["jobs", id]);
    event.target.reset();
  };
  return html`<form class="find" role="search" onSubmit=${find}>
    <input name="id" aria-label="Find a job by its id" placeholder="Job id" autocomplete="off" spellcheck=${false} />
    <button type="submit">Find</button>
  </form>`;
}

function Theme() {
  const [choice, setChoice] = useState(jobwireTheme.chosen());
  const next = () => setChoice(jobwireTheme.next());
  return html`<button type="button" class="theme" onClick=${next} title="Theme: auto follows the system">
    <span aria-hidden="true">${{ auto: "◐", light: "☀", dark: "☾" }[choice]}</span> ${choice}
    <span class="hidden">: change the theme</span>
  </button>`;
}

function Connection() {
  const away = useAway();
  const [wasAway, setWasAway] = useState(false);
  useEffect(() => {
    if (away) return setWasAway(true);
    if (!wasAway) return undefined;
    const timer = setTimeout(() => setWasAway(false), 4000);
    return () => clearTimeout(timer);
  }, [away]);
  if (away) {
    const since = new Date(away.since).toLocaleTimeString();
    return html`<div class="notice bad wide" role="alert">
      <strong>The server, or its store, has not answered since ${since}.</strong> What you see is from before. Trying again…
    </div>`;
  }
  return wasAway && html`<div class="notice good wide" role="status">Connected again.</div>`;
}

render(html`<${App} />`, document.body);
