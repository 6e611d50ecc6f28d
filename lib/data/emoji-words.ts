// Words for emoji: what a picture is called, which pictures are the same thing drawn for another
// person, and which of them are held out. Names come from Unicode CLDR and, where it has none, from
// the emoji list itself.
import { createHash } from "node:crypto";

/** One row of emoji-datasource's emoji.json, as far as it is read here. */
export interface EmojiRow {
  name: string;
  unified: string;
  image: string;
  short_names: string[];
  category: string;
  subcategory: string;
  skin_variations?: Record<string, { image: string }>;
}

/** CLDR annotations of one character: spoken name and keywords. */
export interface Annotation {
  tts?: string[];
  default?: string[];
}

const tones: Record<string, string> = {
  "1F3FB": "light",
  "1F3FC": "medium-light",
  "1F3FD": "medium",
  "1F3FE": "medium-dark",
  "1F3FF": "dark",
};

/** Share of the families that no training picture shows. */
export const heldOutShare = 0.08;

/** The character(s) of a code point list such as "1F3F3-FE0F". */
export const charactersOf = (unified: string): string =>
  String.fromCodePoint(...unified.split("-").map((code) => Number.parseInt(code, 16)));

/** "1F3FB-1F3FE" -> "light and medium-dark skin tone". */
export function toneWords(tone: string): string {
  const words = [...new Set(tone.split("-").map((code) => tones[code] ?? code.toLowerCase()))];
  return `${words.join(" and ")} skin tone`;
}

/**
 * Names the thing a picture shows regardless of skin tone, gender and direction, so that a held-out
 * runner is not seen in training as another runner.
 */
export function familyOf(unified: string): string {
  const codes = unified.toLowerCase().split("-");
  const kept = codes.filter((code) => !/^(fe0f|200d|1f3f[b-f]|2640|2642|27a1)$/.test(code));
  const neutral = kept.map((code) => (code === "1f468" || code === "1f469" ? "1f9d1" : code));
  return (neutral.length > 0 ? neutral : codes).join("-");
}

/**
 * Whether a family is held out: a hash of its name, so the split never depends on order, version or
 * machine.
 */
export function isHeldOut(family: string): boolean {
  const digest = createHash("sha256").update(`smalti emoji split 1: ${family}`).digest();
  return digest.readUInt32BE(0) / 2 ** 32 < heldOutShare;
}

/** Lower case, plain letters, single spaces: "Côte d’Ivoire Flag" -> "cote d'ivoire flag". */
export function plainText(text: string): string {
  return text
    .normalize("NFKD")
    .replace(/\p{Mark}/gu, "")
    .replace(/[‘’]/g, "'")
    .replace(/[“”"():,.!_]/g, " ")
    .toLowerCase()
    .replace(/\s+/g, " ")
    .trim();
}

/** Names of an emoji, the best one first; every one describes the picture by itself. */
export function captionsOf(row: EmojiRow, annotation: Annotation | undefined): string[] {
  const spoken = (annotation?.tts ?? []).map(plainText);
  const name = plainText(row.name);
  const names = row.category === "Flags" && spoken.length === 0 ? flagNames(name) : [name];
  // Unicode names describe 1990s print ("black heart" is the red one), so they count only where
  // CLDR is silent.
  const isMisleading =
    spoken.length > 0 && /\b(black|white|heavy|negative|squared|sign|symbol|with)\b/.test(name);
  const shortNames = row.short_names.map((short) => plainText(short.replace(/[-_]/g, " ")));
  const candidates = [...spoken, ...(isMisleading ? [] : names), ...shortNames.filter(isTelling)];
  return [...new Set(candidates.filter((text) => text !== ""))];
}

/** Keywords of an emoji, without its own captions. */
export function keywordsOf(
  annotation: Annotation | undefined,
  captions: readonly string[],
): string[] {
  const words = (annotation?.default ?? []).map(plainText);
  return [...new Set(words)].filter((word) => word !== "" && !captions.includes(word));
}

const flagNames = (name: string): string[] => {
  const country = name.replace(/ flag$/, "");
  return country === name ? [name] : [`flag of ${country}`, name];
};

// "+1", "8ball" or "flag nf" tell nothing about the picture.
const isTelling = (short: string): boolean => /^[a-z ]{3,}$/.test(short) && !/^flag /.test(short);
