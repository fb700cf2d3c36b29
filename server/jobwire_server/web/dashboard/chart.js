// What happens a minute, over time. The store tells windows of 1, 5 and 15 minutes: they make the first steps of the
// lines, and from then on this page adds a point at each look, for as long as it is open.

import { html, useEffect, useRef } from "./vendor/htm-preact.js";
import uPlot from "./vendor/uplot.js";
import { number, rate, seconds } from "./format.js";
import { Card } from "./parts.js";

const SERIES = [
  ["created_count", "Created", "queued"],
  ["completed_count", "Completed", "completed"],
  ["failed_count", "Failed", "failed"],
  ["retried_count", "Retried", "scheduled"],
];
const KEPT = 3600; // seconds
const SHOWN = 120; // seconds that the chart is wide at least
const HEIGHT = 210; // pixels

let points = []; // [seconds, …a rate per series], over all visits of this page

function note(stats) {
  const at = Date.parse(stats.server_time) / 1000;
  if (points.length && at <= points.at(-1)[0]) return;
  if (!points.length) points = history(stats, at);
  points.push([at, ...SERIES.map(([name]) => aMinute(stats.totals?.activity?.[0], name))]);
  while (points[0][0] < at - KEPT) points.shift();
}

// What lies between two windows is the longer one without the shorter.
function history(stats, at) {
  const windows = stats.totals?.activity ?? [];
  const found = [];
  for (let place = windows.length - 1; place > 0; place -= 1) {
    const [longer, shorter] = [windows[place], windows[place - 1]];
    const [from, to] = [seconds(longer.window) ?? 0, seconds(shorter.window) ?? 0];
    if (from <= to) continue;
    const rates = SERIES.map(([name]) => ((number(longer[name]) - number(shorter[name])) * 60) / (from - to));
    found.push([at - from, ...rates], [at - to - 0.001, ...rates]);
  }
  return found;
}

export function aMinute(activity, name) {
  return (number(activity?.[name]) * 60) / (seconds(activity?.window) || 60);
}

export function Rates({ stats }) {
  const box = useRef(null);
  const plot = useRef(null);
  note(stats);
  useEffect(() => {
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(box.current), columns(), box.current);
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
  useEffect(() => plot.current?.setData(columns()), [stats]);
  const latest = points.at(-1) ?? [];
  return html`<${Card}
    title="Jobs a minute"
    aside=${html`<ul class="legend">
      ${SERIES.map(
        ([name, title, kind], place) =>
          html`<li key=${name}><span class="swatch ${kind}"></span>${title} <strong>${rate(latest[place + 1] ?? 0)}</strong></li>`,
      )}
    </ul>`}
  >
    <div class="chart" ref=${box} aria-hidden="true"></div>
  <//>`;
}

const clock = (tick, step) =>
  new Date(tick * 1000).toLocaleTimeString("en-GB", { timeStyle: step < 60 ? "medium" : "short" });

const columns = () => [0, ...SERIES.map((_, place) => place + 1)].map((place) => points.map((point) => point[place]));

function options(box) {
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
      x: { range: (_, first, last) => [Math.min(first, last - SHOWN), last] },
      y: { range: (_, __, highest) => [0, Math.max(highest * 1.15, 4)] },
    },
    axes: [
      { ...axis, values: (_, ticks, __, ___, step) => ticks.map((tick) => clock(tick, step)), space: 90, size: 30 },
      { ...axis, values: (_, ticks) => ticks.map(rate), size: 48 },
    ],
    series: [
      {},
      ...SERIES.map(([, label, kind]) => ({ label, stroke: color(kind), width: 2, points: { show: false } })),
    ],
  };
}
