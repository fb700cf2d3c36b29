// What happens a minute, over the last hour: minute by minute as the store tells it, and from the opening of the page on
// a point at each look.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import uPlot from "./vendor/uplot.js";
import { call } from "./api.js";
import { number, rate, seconds } from "./format.js";
import { Card } from "./parts.js";

const SERIES = [
  ["created_count", "Created", "queued"],
  ["completed_count", "Completed", "completed"],
  ["failed_count", "Failed", "failed"],
  ["retried_count", "Retried", "scheduled"],
];
const SHOWN = 120; // seconds that the chart is wide at least
const KEPT = 3600; // seconds
const GAP = 60; // seconds without a look, after which the store is asked for the past again
const HEIGHT = 210; // pixels

const compact = new Intl.NumberFormat("en-US", { notation: "compact" });

const pasts = new Map(); // of a queue, or of all ("") → {minutes, live}: lists of [seconds, …a rate per series]

export function aMinute(activity, name) {
  return (number(activity?.[name]) * 60) / (seconds(activity?.window) || 60);
}

const point = (at, activity) => [at, ...SERIES.map(([name]) => aMinute(activity, name))];

// Takes the reading in, and answers all points there are, and whether there is a gap before it.
function note(queue, at, activity) {
  const { minutes, live } = pasts.get(queue) ?? { minutes: [], live: [] };
  const last = live.at(-1)?.[0] ?? 0;
  const hasGap = at - last > GAP;
  const kept = hasGap ? [] : live.filter(([time]) => time > at - KEPT);
  const next = { minutes, live: at > last ? [...kept, point(at, activity)] : kept };
  pasts.set(queue, next);
  return { hasGap, points: [...minutes.filter(([time]) => time > at - KEPT && time < next.live[0][0]), ...next.live] };
}

async function ask(queue) {
  const { stats } = await call("AdminService/GetStats", { queues: queue ? [queue] : [], minutes: true });
  const minutes = stats.minutes ?? [];
  const end = Math.floor(Date.parse(stats.server_time) / 60_000) * 60;
  pasts.get(queue).minutes = minutes.map((minute, place) => point(end - (minutes.length - 1 - place) * 60, minute));
}

// `at`: the store's time of the reading; `activity`: its shortest window.
export function Rates({ queue = "", at: time, activity }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [, setAsked] = useState(0);
  const at = Date.parse(time) / 1000;
  const { hasGap, points } = note(queue, at, activity);
  const columns = [0, ...SERIES.map((_, place) => place + 1)].map((place) => points.map((each) => each[place]));
  const latest = useRef(columns);
  latest.current = columns;
  useEffect(() => {
    if (hasGap) ask(queue).then(() => setAsked(at), () => {}); // without the past, the present is shown
  }, [hasGap]);
  useEffect(() => {
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(box.current, () => latest.current[0]), latest.current, box.current);
    };
    const sized = new ResizeObserver(() => plot.current?.setSize({ width: box.current.clientWidth, height: HEIGHT }));
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    draw();
    sized.observe(box.current);
    scheme.addEventListener("change", draw);
    addEventListener("themechange", draw);
    return () => {
      sized.disconnect();
      scheme.removeEventListener("change", draw);
      removeEventListener("themechange", draw);
      plot.current.destroy();
      plot.current = null;
    };
  }, []);
  useEffect(() => plot.current?.setData(columns), [points.length, at]);
  return html`<${Card}
    title="Jobs a minute"
    aside=${html`<ul class="legend">
      ${SERIES.map(
        ([name, title, kind], place) =>
          html`<li key=${name}><span class="swatch ${kind}"></span>${title} <strong>${rate(points.at(-1)[place + 1])}</strong></li>`,
      )}
    </ul>`}
  >
    <div class="chart" ref=${box} aria-hidden="true"></div>
  <//>`;
}

const clock = (tick, step) =>
  new Date(tick * 1000).toLocaleTimeString("en-GB", { timeStyle: step < 60 ? "medium" : "short" });

function options(box, times) {
  // A canvas knows no variables of a style sheet: it is told what they come to, in this theme.
  const color = (name) => {
    const probe = box.appendChild(document.createElement("i"));
    probe.className = `ink ${name}`;
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const axis = { stroke: color("quiet"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false } };
  return {
    width: box.clientWidth,
    height: HEIGHT,
    cursor: { y: false, drag: { x: false, y: false } },
    legend: { show: false },
    scales: {
      x: { range: () => [Math.min(times()[0], times().at(-1) - SHOWN), times().at(-1)] },
      y: { range: (_, __, highest) => [0, Math.max(highest * 1.15, 4)] },
    },
    axes: [
      { ...axis, values: (_, ticks, __, ___, step) => ticks.map((tick) => clock(tick, step)), space: 90, size: 30 },
      { ...axis, values: (_, ticks) => ticks.map((tick) => compact.format(tick)), size: 48 },
    ],
    series: [
      {},
      ...SERIES.map(([, label, kind], place) => ({
        label,
        stroke: color(kind),
        // The first lies under the others: where both run together it is still to be seen.
        fill: place ? undefined : color(kind).replace(/^rgb\((.*)\)$/, "rgba($1, 0.14)"),
        width: place ? 2 : 1,
        points: { show: false },
      })),
    ],
  };
}
