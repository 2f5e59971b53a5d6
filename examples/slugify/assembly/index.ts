import { Request, Response, log, quote, serve } from "./casemate";

/** A slug has at most this many characters; it is cut between words. */
const LONGEST: i32 = 64;

/** What the letters of the same place in ACCENTED become. */
const PLAIN: string[] = [
  "a", "ae", "c", "d", "e", "g", "h", "i", "j", "k", "l", "n", "o", "oe", "r", "s", "ss", "t", "th", "u", "w", "y", "z",
];

const ACCENTED: string[] = [
  "àáâãäåāăą", "æ", "çćĉċč", "ďđð", "èéêëēĕėęě", "ĝğġģ", "ĥħ", "ìíîïĩīĭįı", "ĵ", "ķ", "ĺļľł", "ñńņň",
  "òóôõöøōŏő", "œ", "ŕŗř", "śŝşšș", "ß", "ţťțŧ", "þ", "ùúûüũūŭůűų", "ŵ", "ýÿŷ", "źżž",
];

/** Answers a title with the part of an address that it could have. */
function slugify(request: Request): Response {
  const title = request.text();
  const slug = slugOf(title);
  if (slug.length == 0) {
    return Response.json(422, '{"error":"the body has no letter or digit to make a slug of"}\n');
  }
  log(slug);
  return Response.json(200, '{"slug":' + quote(slug) + "}\n");
}

function slugOf(title: string): string {
  let slug = "";
  let word = "";
  for (let i = 0; i <= title.length; i++) {
    const plain = i < title.length ? plainOf(title.charCodeAt(i)) : " ";
    if (plain != " ") {
      word += plain;
      continue;
    }
    if (word.length == 0) continue;
    if (slug.length == 0) slug = word.substring(0, LONGEST);
    else if (slug.length + 1 + word.length <= LONGEST) slug += "-" + word;
    else break;
    word = "";
  }
  return slug;
}

/** A character in plain lower-case ASCII, "" to leave it out, " " to end the word. */
function plainOf(c: i32): string {
  if (c >= 0x41 && c <= 0x5a) return String.fromCharCode(c + 0x20);
  if ((c >= 0x61 && c <= 0x7a) || (c >= 0x30 && c <= 0x39)) return String.fromCharCode(c);
  if (c == 0x27 || c == 0x2019 || (c >= 0x300 && c < 0x370)) return ""; // apostrophes, combining marks
  const accented = String.fromCharCode(c).toLowerCase();
  for (let i = 0; i < PLAIN.length; i++) {
    if (ACCENTED[i].includes(accented)) return PLAIN[i];
  }
  return " ";
}

/** What the platform calls for each request. */
export function handle(): void {
  serve(slugify);
}
