// This server, its store and its limits.

import { html } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { bytes, count, engine, moment, number, seconds, setServerTime, short, span } from "./format.js";
import { useLive } from "./live.js";
import { Badge, Card, Facts, Failure, Heavy, Loading, Text, Time } from "./parts.js";

const DURABILITY = {
  UNSPECIFIED: "could not be found out",
  VOLATILE: "kept on no disk: gone with the store's process",
  EVERYSEC: "an OK may be lost for up to two seconds",
  SYNCED: "an OK means that it is on the disk",
  REPLICATED: "an OK means that replicas have it",
};

const TOPOLOGIES = {
  SQLITE: "one file, one server",
  MEMORY: "in memory: gone with the process",
  REDIS: "one primary, any number of servers",
  REDIS_SENTINEL: "found through Sentinel",
  REDIS_CLUSTER: "a Cluster",
};

const LIMITS = [
  ["max_payload_bytes", "Payload"],
  ["max_result_bytes", "Result"],
  ["max_error_bytes", "Error"],
  ["max_http_bytes", "HTTP request of a job"],
  ["max_labels", "Labels"],
  ["max_label_bytes", "One label"],
  ["max_job_bytes", "A job, whole"],
  ["max_receive_bytes", "Message to the server"],
  ["max_send_bytes", "Message from it"],
  ["max_batch_items", "Items of a batch"],
  ["max_page_size", "Entries of a page"],
  ["max_in_flight", "Leases of a worker"],
  ["max_streams_per_principal", "Open streams"],
  ["max_concurrent_calls", "Calls at once"],
];

async function look() {
  const server = await call("AdminService/GetServerInfo");
  setServerTime(server.server_time);
  return server;
}

export function Server() {
  const { value, error } = useLive("server", look);
  return html`
    <h1>Server</h1>
    <${Failure} error=${error} />
    ${value ? html`<${Shown} server=${value} />` : !error && html`<${Loading} />`}
  `;
}

function Shown({ server }) {
  const { store = {}, limits = {} } = server;
  const durability = short(store.durability ?? "DURABILITY_UNSPECIFIED", "DURABILITY");
  return html`
    <${Heavy} server=${server} />
    <div class="columns even">
      <${Card}
        title="Store"
        aside=${html`<${Badge} kind=${store.connected ? "good" : "bad"}>${store.connected ? "Connected" : "Away"}<//>`}
      >
        <${Facts}
          facts=${[
            ["Engine", engine(store)],
            ["Topology", TOPOLOGIES[short(store.kind, "STORE_KIND")]],
            ["Address", html`<${Text} mono>${store.url}<//>`],
            ["Durability", DURABILITY[durability] ?? durability],
            ["Schema", store.schema_version],
            ["Answers in", store.round_trip && span(seconds(store.round_trip))],
            ["Used", number(store.used_bytes) && bytes(store.used_bytes)],
            ["Clients", store.client_count && count(store.client_count)],
            ["Operations a second", store.operations_per_second && count(Math.round(store.operations_per_second))],
          ]}
        />
      <//>
      <${Card} title="This process">
        <${Facts}
          facts=${[
            ["Version", server.version],
            ["Address", html`<span class="mono">${location.host}</span>`],
            ["Instance", html`<span class="mono">${server.instance_id}</span>`],
            ["Serves since", html`<${Time} at=${server.start_time} />`],
            ["At work", `${Math.round((server.load ?? 0) * 100)} % of the last minute`],
            ["Store's clock", moment(server.server_time)],
          ]}
        />
      <//>
    </div>
    <${Card} title="Limits">
      <${Facts}
        facts=${LIMITS.map(([name, title]) => [
          title,
          name.endsWith("_bytes") ? bytes(limits[name]) : count(limits[name]),
        ])}
      />
    <//>
  `;
}
