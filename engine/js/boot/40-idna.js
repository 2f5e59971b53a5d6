// Domain names beyond ASCII: UTS #46 ToASCII as the URL standard uses it
// (non-transitional, not strict), and Punycode (RFC 3492).
//
// The mapping table of UTS #46 is not carried along: it is, but for few code
// points, NFKC of the lower-cased text without the default-ignorable ones, and
// the engine has the Unicode data for that. What the table would disallow is
// found by general category.
const IGNORED = /[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060\u2064\u3164\ufe00-\ufe0f\ufeff\uffa0\u{e0100}-\u{e01ef}]/gu;
const DISALLOWED = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Cn}\p{Zs}\p{Zl}\p{Zp}\ufffc\ufffd\u2ff0-\u2fff\u31ef]/u;
const JOINERS = /[\u200c\u200d]/;
const VIRAMA_JOINER = /[\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d3b\u0d3c\u0d4d\u0dca\u0e3a\u0eba\u0f84\u1039\u103a\u1714\u1715\u1734\u17d2\u1a60\u1b44\u1baa\u1bab\u1bf2\u1bf3\u2d7f\ua806\ua82c\ua8c4\ua953\ua9c0\uaaf6\uabed\u{10a3f}\u{11046}\u{1107f}\u{110b9}\u{11133}\u{11134}\u{111c0}\u{11235}\u{112ea}\u{1134d}\u{11442}\u{114c2}\u{115bf}\u{1163f}\u{116b6}\u{1172b}\u{11839}][\u200c\u200d]/u;
const JOINING_ZWNJ = /[\p{Script=Arabic}\p{Script=Syriac}\p{Script=Mongolian}\p{Script=Nko}\p{Script=Phags_Pa}]\p{M}*\u200c\p{M}*[\p{Script=Arabic}\p{Script=Syriac}\p{Script=Mongolian}\p{Script=Nko}\p{Script=Phags_Pa}]/u;
const RIGHT_TO_LEFT = /(?=\p{L})[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Samaritan}\p{Script=Mandaic}\p{Script=Adlam}]/u;

// domainToASCII gives the ASCII form in lower case, or null.
function domainToASCII(domain) {
  if (/^[\x00-\x7f]*$/.test(domain)) {
    domain = domain.toLowerCase();
    if (!/(^|\.)xn--/.test(domain)) return domain;
  }
  const mapped = mapDomain(domain);
  const labels = mapped.split(".");
  for (let i = 0; i < labels.length; i++) {
    const ascii = labelToASCII(labels[i]);
    if (ascii === null) return null;
    labels[i] = ascii;
  }
  return labels.join(".");
}

// mapDomain gives the mapped form, in which what must not be there is U+FFFD.
function mapDomain(s) {
  let dots = s.replace(IGNORED, "").replace(/[\u3002\uff0e\uff61]/g, ".").replace(/\u1e9e/g, "\u00df");
  // Numbers with a full stop and the like: compatible to text with a dot, but not allowed.
  dots = dots.replace(/[\u2024-\u2026\u2488-\u249b\u33c2\u33c7\u33d8\ufe12\ufe19\ufe30\ufe52\u{1f100}]/gu, "\ufffd");
  return lower(lower(dots).normalize("NFKC").replace(IGNORED, "")).normalize("NFC");
}

// lower is toLowerCase, except that a final sigma is not turned into another letter by context.
function lower(s) {
  return s.includes("\u03a3") ? s.split("\u03a3").map((p) => p.toLowerCase()).join("\u03c3") : s.toLowerCase();
}

function labelToASCII(label) {
  let unicode = label;
  if (label.startsWith("xn--")) {
    if (!/^[\x00-\x7f]*$/.test(label)) return null;
    unicode = punycodeDecode(label.slice(4));
    // What decodes to ASCII, or to something that is not in mapped form, is no valid label.
    if (unicode === null || unicode === "" || /^[\x00-\x7f]*$/.test(unicode) || mapDomain(unicode) !== unicode) return null;
    return validLabel(unicode) ? label : null;
  }
  if (/^[\x00-\x7f]*$/.test(label)) return label;
  return validLabel(unicode) ? `xn--${punycodeEncode(unicode)}` : null;
}

function validLabel(label) {
  if (/^\p{M}/u.test(label) || /^xn--/i.test(label) || label.includes(".")) return false;
  if (JOINERS.test(label)) {
    const without = label.replace(new RegExp(VIRAMA_JOINER, "gu"), "");
    if (JOINERS.test(without) && (without.includes("\u200d") || !JOINING_ZWNJ.test(without))) return false;
  }
  if (DISALLOWED.test(label.replace(/[\u200c\u200d]/g, ""))) return false;
  // A part of the Bidi rule (RFC 5893) that needs no table: no mixing of directions in one label.
  if (RIGHT_TO_LEFT.test(label) && (/\p{Script=Latin}|\p{Script=Greek}|\p{Script=Cyrillic}/u.test(label) || /^[0-9]/.test(label))) return false;
  return true;
}

const PUNY_BASE = 36, PUNY_TMIN = 1, PUNY_TMAX = 26, PUNY_MAX = 0x7fffffff;

function punyAdapt(delta, points, first) {
  delta = first ? Math.floor(delta / 700) : delta >> 1;
  delta += Math.floor(delta / points);
  let k = 0;
  for (; delta > 455; k += PUNY_BASE) delta = Math.floor(delta / (PUNY_BASE - PUNY_TMIN));
  return k + Math.floor(36 * delta / (delta + 38));
}

function punyThreshold(k, bias) {
  return k <= bias ? PUNY_TMIN : k >= bias + PUNY_TMAX ? PUNY_TMAX : k - bias;
}

function punyDigit(d) {
  return String.fromCharCode(d < 26 ? d + 97 : d + 22);
}

function punycodeEncode(text) {
  const points = Array.from(text, (c) => c.codePointAt(0));
  let out = points.filter((p) => p < 0x80).map((p) => String.fromCharCode(p)).join("");
  const basic = out.length;
  let handled = basic;
  if (basic > 0) out += "-";
  let n = 0x80, delta = 0, bias = 72;
  while (handled < points.length) {
    const next = Math.min(...points.filter((p) => p >= n));
    delta += (next - n) * (handled + 1);
    n = next;
    for (const p of points) {
      if (p < n) delta++;
      if (p !== n) continue;
      let q = delta;
      for (let k = PUNY_BASE; ; k += PUNY_BASE) {
        const t = punyThreshold(k, bias);
        if (q < t) break;
        out += punyDigit(t + (q - t) % (PUNY_BASE - t));
        q = Math.floor((q - t) / (PUNY_BASE - t));
      }
      out += punyDigit(q);
      bias = punyAdapt(delta, handled + 1, handled === basic);
      delta = 0;
      handled++;
    }
    delta++;
    n++;
  }
  return out;
}

// punycodeDecode gives null for what is not Punycode.
function punycodeDecode(text) {
  const cut = text.lastIndexOf("-");
  const points = cut > 0 ? Array.from(text.slice(0, cut), (c) => c.charCodeAt(0)) : [];
  let n = 0x80, i = 0, bias = 72;
  for (let at = cut > 0 ? cut + 1 : 0; at < text.length;) {
    const old = i;
    for (let k = PUNY_BASE, w = 1; ; k += PUNY_BASE) {
      if (at >= text.length) return null;
      const c = text.charCodeAt(at++);
      const d = c >= 97 && c <= 122 ? c - 97 : c >= 65 && c <= 90 ? c - 65 : c >= 48 && c <= 57 ? c - 22 : -1;
      if (d < 0 || d > (PUNY_MAX - i) / w) return null;
      i += d * w;
      const t = punyThreshold(k, bias);
      if (d < t) break;
      if (w > PUNY_MAX / (PUNY_BASE - t)) return null;
      w *= PUNY_BASE - t;
    }
    const length = points.length + 1;
    bias = punyAdapt(i - old, length, old === 0);
    n += Math.floor(i / length);
    i %= length;
    if (n > 0x10ffff || (n >= 0xd800 && n <= 0xdfff)) return null;
    points.splice(i++, 0, n);
  }
  return String.fromCodePoint(...points);
}
