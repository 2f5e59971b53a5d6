// A handler that runs the standards' own tables, given as a JSON body, and answers
// with what went differently: {urls, setters, names}, each {passed, failed: [text]}.
const PARTS = "href origin protocol username password host hostname port pathname search hash".split(" ");

function result() {
  const r = { passed: 0, failed: [] };
  r.note = (wrong, what) => {
    if (wrong.length === 0) r.passed++;
    else r.failed.push(`${what}: ${wrong.join("; ")}`);
  };
  return r;
}

function urls(table) {
  const r = result();
  for (const t of table) {
    if (typeof t === "string") continue; // a comment
    const what = `${JSON.stringify(t.input)} on ${t.base}`;
    let url = null;
    try {
      url = new URL(t.input, t.base ?? undefined);
    } catch (e) {
      r.note(t.failure && e instanceof TypeError ? [] : [`threw ${e}`], what);
      continue;
    }
    if (t.failure) r.note([`gave ${url.href}`], what);
    else r.note(PARTS.filter((p) => t[p] !== undefined && url[p] !== t[p]).map((p) => `${p} is ${url[p]}, not ${t[p]}`), what);
  }
  return r;
}

function setters(table) {
  const r = result();
  for (const [property, cases] of Object.entries(table)) {
    if (property === "comment") continue;
    for (const t of cases) {
      const url = new URL(t.href);
      url[property] = t.new_value;
      const wrong = Object.keys(t.expected).filter((p) => url[p] !== t.expected[p]);
      r.note(wrong.map((p) => `${p} is ${url[p]}, not ${t.expected[p]}`), `${property} of ${t.href} to ${JSON.stringify(t.new_value)}`);
    }
  }
  return r;
}

// Statuses of checks that the URL standard leaves out of a domain's processing:
// VerifyDnsLength, CheckHyphens, UseSTD3ASCIIRules.
const LEFT_OUT = ["A4_1", "A4_2", "V2", "V3", "U1"];
// Checks that the engine makes in part only, lacking the tables: the Bidi rule (B) and
// the joining types of ContextJ (C).
const IN_PART = /^[BC]/;

function names(text) {
  const r = result();
  r.tolerated = 0;
  for (let line of text.split("\n")) {
    line = line.replace(/#.*$/, "").trim();
    if (line === "") continue;
    const f = line.split(";").map((s) => s.trim().replace(/\\u([0-9A-F]{4})/g, (_, h) => String.fromCharCode(parseInt(h, 16)))
      .replace(/\\x\{([0-9A-F]+)\}/g, (_, h) => String.fromCodePoint(parseInt(h, 16))));
    const source = f[0];
    // What ends the host in a URL, or is decoded there, cannot be put as a case.
    if (source === '""' || source === "" || /[%:/?#@[\]^|<>\\ ]/.test(source)) continue;
    const listed = (f[4] || f[2]).replace(/[[\]]/g, "").split(",").map((s) => s.trim()).filter((s) => s !== "");
    const status = listed.filter((s) => !LEFT_OUT.includes(s));
    const want = f[3] || f[1] || source;
    let got = null;
    try {
      got = new URL(`https://${source}/`).hostname;
    } catch {
      // refused
    }
    const what = `${JSON.stringify(source)} (${listed.join(" ")})`;
    if (status.length > 0) {
      if (got !== null && status.every((s) => IN_PART.test(s))) r.tolerated++;
      else r.note(got === null ? [] : [`gave ${got}`], what);
      continue;
    }
    // A name that only the checks left out refuse may still not be a host (an empty one, a number).
    r.note(got === want || (got === null && listed.length > 0) ? [] : [`gave ${got}, not ${want}`], what);
  }
  return r;
}

export default {
  async fetch(request) {
    const t = await request.json();
    return Response.json({ urls: urls(t.urls), setters: setters(t.setters), names: names(t.names) });
  },
};
