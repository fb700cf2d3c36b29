// Calls of the server, by the Connect protocol: `call("JobService/GetJob", { job_id })`.

export class CallError extends Error {
  constructor(code, reason, message) {
    super(message);
    this.code = code;
    this.reason = reason; // as in protos/jobwire/v1/errors.proto; UNREACHABLE when no answer came
  }

  get isAway() {
    return this.code === "unavailable";
  }
}

let roles; // of who looks, as the last answer said them; none where nobody has to say who he is

// Whether a button is of use. It is the server that refuses.
export const may = (role) => !roles || roles.includes("admin") || roles.includes(role);

export async function call(rpc, request = {}) {
  let answer;
  let body;
  try {
    answer = await fetch(`jobwire.v1.${rpc}`, {
      method: "POST",
      headers: { "content-type": "application/json", "connect-protocol-version": "1" },
      body: JSON.stringify(request),
    });
    body = await answer.json();
    roles = answer.headers.get("jobwire-roles")?.split(" ");
  } catch {
    throw new CallError("unavailable", "UNREACHABLE", "The server does not answer.");
  }
  if (answer.ok) return body;
  const told = (body.details ?? []).map((detail) => detail.debug).find((debug) => debug?.reason);
  throw new CallError(body.code ?? "unknown", told?.reason ?? "", sentence(body.message ?? `HTTP ${answer.status}`));
}

function sentence(text) {
  const said = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(said) ? said : `${said}.`;
}
