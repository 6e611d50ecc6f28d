// The part of YAML 1.1 that configuration files of published models use: block and flow mappings and lists, quoted and
// plain scalars, comments. Anchors, tags and several documents are refused by name.
import { DiffusionError } from "../errors.js";

export type YamlValue =
  null | boolean | number | string | YamlValue[] | { [key: string]: YamlValue };

interface Line {
  number: number;
  indent: number;
  text: string;
}

const maxDepth = 64;
const maxLine = 8192; // the time of matching grows faster than the length

/** Parses a text. Throws "checkpoint" with the line of anything else. */
export function parseYaml(text: string, where: string): YamlValue {
  const parser = new YamlParser(logicalLines(text, where), where);
  return parser.document();
}

/** Lines without comments and blank ones; a flow value that spans lines is joined. */
function logicalLines(text: string, where: string): Line[] {
  const lines: Line[] = [];
  let open: Line | undefined;
  text.split(/\r?\n/).forEach((raw, i) => {
    const content = withoutComment(raw).trimEnd();
    if (content.trim() === "" || /^(?:---\s*|%.*)$/.test(content)) return;
    if (/^\s*\t/.test(content))
      throw new DiffusionError("checkpoint", `${where}: line ${i + 1}: expected spaces, got a tab`);
    if (open) {
      open.text += ` ${content.trim()}`;
    } else {
      open = {
        number: i + 1,
        indent: content.length - content.trimStart().length,
        text: content.trim(),
      };
      lines.push(open);
    }
    if (open.text.length > maxLine)
      throw new DiffusionError(
        "checkpoint",
        `${where}: line ${i + 1}: expected at most ${maxLine} letters, got more`,
      );
    if (openBrackets(open.text) <= 0) open = undefined;
  });
  return lines;
}

/** The text before a comment; quotes hide its sign. */
function withoutComment(line: string): string {
  let quote = "";
  for (let i = 0; i < line.length; ++i) {
    const c = line[i]!;
    if (quote) quote = c === quote ? "" : quote;
    else if ((c === '"' || c === "'") && /^$|[\s[{,:-]$/.test(line.slice(Math.max(0, i - 1), i)))
      quote = c;
    else if (c === "#" && (i === 0 || /\s/.test(line[i - 1]!))) return line.slice(0, i);
  }
  return line;
}

/** Brackets of flow values that are not closed yet. */
function openBrackets(text: string): number {
  const value = /^(?:- +)*(?:[^\s"'[{][^:]*: +)?([[{].*)$/.exec(text)?.[1];
  if (value === undefined) return 0;
  const plain = value.replace(/"(?:[^"\\]|\\.)*"|'[^']*'/g, "");
  return plain.split(/[[{]/).length - plain.split(/[\]}]/).length;
}

class YamlParser {
  #at = 0;

  constructor(
    readonly lines: readonly Line[],
    readonly where: string,
  ) {}

  document(): YamlValue {
    const first = this.lines[0];
    if (!first) return null;
    const value = this.block(first.indent, 0);
    const rest = this.lines[this.#at];
    if (rest) throw this.wrong(rest, "the indentation of the lines before");
    return value;
  }

  wrong(line: Line, expected: string): DiffusionError {
    const text = line.text.slice(0, 60);
    return new DiffusionError(
      "checkpoint",
      `${this.where}: line ${line.number}: expected ${expected}, got "${text}"`,
    );
  }

  /** The value of the lines with this indentation. */
  block(indent: number, depth: number): YamlValue {
    const line = this.lines[this.#at]!;
    if (depth > maxDepth) throw this.wrong(line, `at most ${maxDepth} levels`);
    if (/^-(?: |$)/.test(line.text)) return this.list(indent, depth);
    if (keyOf(line.text)) return this.mapping(indent, depth);
    ++this.#at;
    return this.scalar(line, line.text);
  }

  list(indent: number, depth: number): YamlValue[] {
    const items: YamlValue[] = [];
    for (;;) {
      const line = this.lines[this.#at];
      if (!line || line.indent !== indent || !/^-(?: |$)/.test(line.text)) return items;
      const text = line.text.slice(1).trim();
      if (text === "") {
        ++this.#at;
        items.push(this.below(indent, depth));
      } else if (keyOf(text) || /^-(?: |$)/.test(text)) {
        // "- key: value" is a mapping whose first line stands after the dash.
        line.indent += line.text.length - text.length;
        line.text = text;
        items.push(this.block(line.indent, depth + 1));
      } else {
        ++this.#at;
        items.push(this.scalar(line, text));
      }
    }
  }

  mapping(indent: number, depth: number): { [key: string]: YamlValue } {
    const entries: [string, YamlValue][] = [];
    for (;;) {
      const line = this.lines[this.#at];
      if (!line || line.indent !== indent) break;
      const [key, text] = keyOf(line.text) ?? [];
      if (key === undefined) break;
      ++this.#at;
      if (/^[|>][+-]?$/.test(text!)) entries.push([key, this.literal(indent)]);
      else if (text !== "") entries.push([key, this.scalar(line, text!)]);
      else entries.push([key, this.below(indent, depth, true)]);
    }
    return Object.fromEntries(entries);
  }

  /** Deeper lines; for a key also a list at its own indentation. */
  below(indent: number, depth: number, mayBeList = false): YamlValue {
    const line = this.lines[this.#at];
    if (line && line.indent > indent) return this.block(line.indent, depth + 1);
    const isList = mayBeList && line?.indent === indent && /^-(?: |$)/.test(line.text);
    return isList ? this.list(indent, depth + 1) : null;
  }

  literal(indent: number): string {
    const texts: string[] = [];
    for (
      let line = this.lines[this.#at];
      line && line.indent > indent;
      line = this.lines[this.#at]
    ) {
      texts.push(line.text);
      ++this.#at;
    }
    return texts.join("\n");
  }

  scalar(line: Line, text: string): YamlValue {
    if (/^[&*!|>@`]/.test(text)) throw this.wrong(line, "no anchors, tags or block texts");
    if (!/^[[{]/.test(text)) return plainScalar(text);
    const flow = new FlowParser(text);
    const value = flow.value(0);
    if (value === undefined || !flow.isDone) throw this.wrong(line, "a list or mapping");
    return value;
  }
}

/** Key and rest of a line of a mapping. */
function keyOf(text: string): [key: string, rest: string] | undefined {
  const match =
    /^("(?:[^"\\]|\\.)*"|'[^']*'|[^\s"'[{#&*!|>@`-][^#]*?|-[^\s:][^#]*?)\s*:(?:\s+(.*))?$/.exec(
      text,
    );
  if (!match) return undefined;
  return [unquoted(match[1]!), (match[2] ?? "").trim()];
}

const unquoted = (text: string): string => {
  if (/^'.*'$/s.test(text)) return text.slice(1, -1).replaceAll("''", "'");
  if (!/^".*"$/s.test(text)) return text;
  try {
    return String(JSON.parse(text));
  } catch {
    return text.slice(1, -1);
  }
};

function plainScalar(text: string): YamlValue {
  if (/^(?:'.*'|".*")$/s.test(text)) return unquoted(text);
  if (/^(?:~|null|none)?$/i.test(text)) return null;
  if (/^(?:true|yes|on)$/i.test(text)) return true;
  if (/^(?:false|no|off)$/i.test(text)) return false;
  if (/^[-+]?(?:\d[\d_]*)(?:\.\d*)?(?:e[-+]?\d+)?$|^[-+]?\.\d+(?:e[-+]?\d+)?$/i.test(text))
    return Number(text.replaceAll("_", ""));
  return text;
}

/** Values in brackets, on one line. */
class FlowParser {
  #at = 0;

  constructor(readonly text: string) {}

  get isDone(): boolean {
    return this.text.slice(this.#at).trim() === "";
  }

  /** Undefined when the text is not a value. */
  value(depth: number): YamlValue | undefined {
    this.skip();
    if (depth > maxDepth) return undefined;
    const c = this.text[this.#at];
    if (c === "[") return this.list(depth);
    if (c === "{") return this.mapping(depth);
    const match = /^(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^,[\]{}]+)/.exec(
      this.text.slice(this.#at, this.#at + 4096),
    );
    if (!match) return undefined;
    this.#at += match[0].length;
    return plainScalar(match[0].trim());
  }

  skip(): void {
    while (this.text[this.#at] === " ") ++this.#at;
  }

  /** Passes one of the characters and returns it. */
  next(...characters: readonly string[]): string | undefined {
    this.skip();
    const c = this.text[this.#at];
    if (c === undefined || !characters.includes(c)) return undefined;
    ++this.#at;
    return c;
  }

  list(depth: number): YamlValue[] | undefined {
    this.next("[");
    const items: YamlValue[] = [];
    for (;;) {
      if (this.next("]")) return items;
      const item = this.value(depth + 1);
      if (item === undefined) return undefined;
      items.push(item);
      if (!this.next(",")) return this.next("]") ? items : undefined;
    }
  }

  mapping(depth: number): { [key: string]: YamlValue } | undefined {
    this.next("{");
    const entries: [string, YamlValue][] = [];
    for (;;) {
      if (this.next("}")) return Object.fromEntries(entries);
      this.skip();
      const key = /^("[^"]*"|'[^']*'|[^,:[\]{}"']+)\s*:(?=[\s[{"'])/.exec(
        this.text.slice(this.#at, this.#at + 1024),
      );
      if (!key) return undefined;
      this.#at += key[0].length;
      const value = this.value(depth + 1);
      if (value === undefined) return undefined;
      entries.push([unquoted(key[1]!.trim()), value]);
      if (!this.next(",")) return this.next("}") ? Object.fromEntries(entries) : undefined;
    }
  }
}
