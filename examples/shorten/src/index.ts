// Links that carry where they lead and until when, signed, so that nothing has to
// be stored: POST /links makes one, GET /s/TOKEN follows it.
import { open, seal } from "./token";

const longest = 2048; // of an address, in characters
const day = 24 * 60 * 60 * 1000;

export default {
  async fetch(request, env) {
    try {
      const { pathname, origin } = new URL(request.url);
      if (request.method === "POST") return await make(request, origin, env);
      return await follow(pathname.slice("/s/".length), env);
    } catch (e) {
      if (e instanceof Refusal) return Response.json({ error: e.message }, { status: e.status });
      throw e; // the platform answers 502; message and stack are in the log
    }
  },
} satisfies Casemate.Handler;

// make answers {"url": "https://…", "days": 30} with a link; days may be left out.
async function make(request: Request, origin: string, env: Casemate.Env): Promise<Response> {
  let input: { url?: unknown; days?: unknown } | null;
  try {
    input = await request.json();
  } catch {
    throw new Refusal(400, "the body is not JSON");
  }
  if (typeof input?.url !== "string" || input.url.length > longest) throw new Refusal(422, `url must be text of at most ${longest} characters`);
  const target = allowed(input.url, env);
  if (target === null) throw new Refusal(422, `url must begin with https:// and lead to one of ${sites(env).join(", ")}`);

  let expires = 0; // never
  if (input.days !== undefined) {
    const days = input.days;
    if (typeof days !== "number" || !Number.isInteger(days) || days < 1 || days > 365) throw new Refusal(422, "days must be a whole number from 1 to 365");
    expires = Date.now() + days * day;
  }
  const path = "/s/" + (await seal({ target: target.href, expires }, phrase(env)));
  console.log(`a link to ${target.host}`);
  return Response.json(
    { path, link: origin + path, expires: expires === 0 ? null : new Date(expires).toISOString() },
    { status: 201, headers: { location: path } },
  );
}

// follow redirects to where a token leads.
async function follow(token: string, env: Casemate.Env): Promise<Response> {
  const link = await open(token, phrase(env));
  if (link === null) throw new Refusal(404, "there is no such link");
  if (link.expires !== 0 && link.expires <= Date.now()) throw new Refusal(410, "the link has expired");
  // A site that was taken off the list since is no longer led to.
  const target = allowed(link.target, env);
  if (target === null) throw new Refusal(410, "the link leads to a site that is no longer allowed");
  return Response.redirect(target, 302);
}

// allowed gives the address when it is one that a link may lead to.
function allowed(address: string, env: Casemate.Env): URL | null {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  const plain = url.protocol === "https:" && url.username === "" && url.password === "" && url.port === "";
  return plain && sites(env).includes(url.hostname) ? url : null;
}

function sites(env: Casemate.Env): string[] {
  return (env.SITES ?? "").split(" ").filter((site) => site !== "");
}

function phrase(env: Casemate.Env): string {
  if (!env.SIGNATURE) throw new Error("casemate.yaml sets no environment.SIGNATURE");
  return env.SIGNATURE;
}

// Refusal is an error that is the caller's to correct.
class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}
