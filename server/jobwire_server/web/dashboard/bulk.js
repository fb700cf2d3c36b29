// One change of many jobs: first how many it would be, then, when that was confirmed, a thousand a call to the end.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { count, number, plural } from "./format.js";
import { Dialog } from "./parts.js";

const COUNTED = 10; // calls of a dry run; what goes beyond is told as "more than"

// `counted`: the field of the answer that tells how many. `close` is called at the end, after `done`.
export function Bulk({ title, verb, kind = "danger", rpc, request, counted, isReady = true, done, close, children }) {
  const [found, setFound] = useState(null);
  const [changed, setChanged] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    let isOver = false;
    const look = async () => {
      let total = 0;
      let page_token;
      for (let calls = 1; ; calls += 1) {
        const answer = await call(rpc, { ...request, ...(page_token && { page_token }), validate_only: true });
        if (isOver) return;
        total += number(answer[counted]);
        page_token = answer.next_page_token;
        // Without a token a further dry run would count the same jobs again.
        if (!answer.more || !page_token || calls === COUNTED) return setFound({ total, more: Boolean(answer.more) });
      }
    };
    setFound(null);
    setError(null);
    if (isReady) look().catch((failure) => isOver || setError(failure));
    return () => {
      isOver = true;
    };
  }, [JSON.stringify(request)]);
  const act = async () => {
    let total = 0;
    let page_token;
    let more = true;
    while (more) {
      const answer = await call(rpc, { ...request, ...(page_token && { page_token }) });
      total += number(answer[counted]);
      ({ next_page_token: page_token, more = false } = answer);
      setChanged(total);
    }
    await done?.(total);
  };
  const many = found && `${found.more ? "more than " : ""}${plural(found.total, "job")}`;
  return html`<${Dialog}
    title=${title}
    verb=${found?.total || found?.more ? `${verb} ${many}` : ""}
    kind=${kind}
    act=${act}
    close=${close}
  >
    ${children}
    <p role="status">
      ${error
        ? error.message
        : !isReady
          ? "Choose at least one."
          : changed !== null
            ? `${count(changed)} done…`
            : found === null
              ? "Counting…"
              : found.total || found.more
                ? `That is ${many}.`
                : "No job matches: there is nothing to do."}
    </p>
  <//>`;
}
