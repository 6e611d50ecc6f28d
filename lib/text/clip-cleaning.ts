// What CLIP does to a text before it is cut into words: broken characters repaired, HTML resolved,
// blanks collapsed, lower case. Source: openai/CLIP clip/simple_tokenizer.py, and for the repairs
// rspeer/ftfy 6 (without its search for wrongly decoded bytes).
import { meantCharacter, unescapeHtml } from "./html-entities.js";

/** Blanks as Unicode has them; JavaScript's \s lacks U+0085 and adds U+FEFF. */
const blanks = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const blankRuns = new RegExp(`[${blanks}]+`, "gu");
/** The separators of ASCII count at the ends of a text only. */
const ends = new RegExp(`^[${blanks}\\x1c-\\x1f]+|[${blanks}\\x1c-\\x1f]+$`, "gu");

const strip = (text: string): string => text.replace(ends, "");

/** Letters that fonts join, and their parts. */
const ligatures: Readonly<Record<string, string>> = {
  Ĳ: "IJ", ĳ: "ij", ŉ: "ʼn", Ǳ: "DZ", ǲ: "Dz", ǳ: "dz", Ǆ: "DŽ", ǅ: "Dž", ǆ: "dž", Ǉ: "LJ", ǈ: "Lj",
  ǉ: "lj", Ǌ: "NJ", ǋ: "Nj", ǌ: "nj", ﬀ: "ff", ﬁ: "fi", ﬂ: "fl", ﬃ: "ffi", ﬄ: "ffl", ﬅ: "ſt", ﬆ: "st",
}; // prettier-ignore
const ligature = new RegExp(`[${Object.keys(ligatures).join("")}]`, "gu");

/** Characters as wide as a Chinese one, or half as wide as usual. */
const oddWidth = /[\u3000\uff01-\uffef]/gu;
// eslint-disable-next-line no-control-regex -- these are what is looked for
const terminalEscape = /\x1b\[(?:\d|;)*[a-zA-Z]/gu;
const lineBreak = /\r\n|[\r\u2028\u2029]/gu;
// eslint-disable-next-line no-control-regex -- these are what is looked for
const control = /[\0-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/gu;

/** References with a semicolon. */
const closedReference = /&#?[0-9A-Za-z]{1,24};/gu;

/**
 * Character repairs: references resolved unless the text looks like HTML, quotes straight,
 * ligatures apart, widths usual, no control characters, NFC.
 */
const repairText = (text: string): string =>
  (text.includes("<") ? text : text.replace(closedReference, unescapeHtml))
    .replace(terminalEscape, "")
    .replace(/[\x80-\x9f]/gu, (found) => meantCharacter(found.charCodeAt(0)))
    .replace(ligature, (found) => ligatures[found]!)
    .replace(oddWidth, (found) => found.normalize("NFKC"))
    .replace(/[\u02bc\u2018-\u201b]/gu, "'")
    .replace(/[\u201c-\u201f]/gu, '"')
    .replace(lineBreak, "\n")
    .replace(control, "")
    .normalize("NFC");

/** The text as CLIP's words are cut from it. */
export function cleanText(text: string, { repair }: { repair: boolean }): string {
  const readable = repair ? repairText(text) : text;
  const plain = strip(unescapeHtml(unescapeHtml(readable)));
  return strip(plain.replace(blankRuns, " ")).toLowerCase();
}
