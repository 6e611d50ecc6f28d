// From the modules in build/library to dist/: one script of all but the command line, V8's code of it, for each of its
// modules a file of a few lines that exports its part, and the command line in a few files.
import { copyFileSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";

const entry = "library";
const standsAlone = (path) => /^(cli|golden)\b/.test(path);

/** What all modules export, by path; as plain values, which are made faster than modules with a getter for each. */
const libraryEntry = (from, paths) => ({
  name: "library-entry",
  resolveId: (id) => (id === entry ? id : null),
  async load(id) {
    if (id !== entry) return null;
    const imports = [];
    const members = [];
    for (const [i, path] of paths.entries()) {
      const file = join(from, path);
      const names = Object.keys(await import(pathToFileURL(file)));
      const parts = names.map((name) => [name, `${name}_${i}`]);
      const imported = parts.map(([name, part]) => `${name} as ${part}`);
      imports.push(`import { ${imported.join(", ")} } from "${file}";`);
      members.push(`"${path}": { ${parts.map((part) => part.join(": ")).join(", ")} }`);
    }
    return `${imports.join("\n")}\nexport default { ${members.join(", ")} };`;
  },
});

/** Packages and parts of Node are loaded at their first use: few programs need cryptography, tokenizers or processes. */
function lateImports(code) {
  const getters = [];
  const rest = code.replace(/^let (\w+) = require\(("[^"]+")\);$/gm, (_, name, id) => {
    getters.push(`get ${name}() { return require(${id}); }`);
    return "";
  });
  const names = getters.map((getter) => getter.match(/\w+(?=\()/)[0]).join("|");
  const late = rest.replace(new RegExp(`\\b(${names})\\.`, "g"), "late.$1.");
  return `const late = { ${getters.join(", ")} };\n${late}`;
}

/** A function that takes `require` and the script's path; ASCII, of which V8 keeps a byte a letter. */
async function oneScript(from, paths) {
  const { rolldown } = await import("rolldown");
  const bundle = await rolldown({
    input: entry,
    platform: "node",
    external: (id) => id !== entry && !/^[./]/.test(id),
    plugins: [libraryEntry(from, paths)],
  });
  const { output } = await bundle.generate({ format: "cjs", exports: "default", comments: false });
  await bundle.close();
  const code = lateImports(output[0].code).replace(
    /[^\0-\x7f]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return `(function (require, __filename, module = {}) {${code}\nreturn module.exports;\n})`;
}

function exportsOf(path, names, loader) {
  if (names.length === 0) return "export {};\n";
  return `import { modules } from "${loader}";\nexport const { ${names.join(", ")} } = modules["${path}"];\n`;
}

/** Modules of the library are what its script made of them. */
const fromLibrary = (from, modules) => ({
  name: "from-library",
  resolveId(id, importer) {
    const path = importer && id.startsWith(".") && relative(from, join(dirname(importer), id));
    return path && modules[path] ? `library:${path}` : null;
  },
  load(id) {
    const path = id.replace(/^library:/, "");
    return path === id ? null : exportsOf(path, Object.keys(modules[path]), "load");
  },
});

/** The command `smalti`, and what benchmarks share with it, as few files. */
async function bundleCommands(from, to, modules) {
  const { rolldown } = await import("rolldown");
  const names = readdirSync(from).filter((name) => /^(main|bench-[a-z]+)\.js$/.test(name));
  const bundle = await rolldown({
    input: names.map((name) => join(from, name)),
    platform: "node",
    external: (id) => !/^([./]|library:)/.test(id),
    plugins: [fromLibrary(dirname(from), modules)],
  });
  const { output } = await bundle.generate({ comments: false, chunkFileNames: "[name].js" });
  await bundle.close();
  for (const { fileName, code } of output)
    writeFileSync(join(to, fileName), code.replaceAll('"load"', '"../library/load.js"'));
}

/** What most programs do at their start, so that its functions are in the code that is kept. */
async function warm({ compile, ddpmUnet, ddpmUnetConfigs, loadPipeline, trace }) {
  const { forward } = ddpmUnet(ddpmUnetConfigs.cifar10);
  const graph = trace((t) => {
    const times = t.input("times", { shape: [1], dtype: "i32" });
    t.output("y", forward({ x: t.input("x", { shape: [1, 32, 32, 3] }), times }));
  });
  (await compile(graph)).dispose();
  const pipe = await loadPipeline("emoji-64");
  await pipe.generate({ steps: 1 });
  pipe.dispose();
}

export async function bundle(from, to) {
  const files = readdirSync(from, { recursive: true }).filter((path) => path.endsWith(".js"));
  const paths = files.filter((path) => !standsAlone(path)).sort();
  const folder = join(to, "library");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "library.cjs"), await oneScript(from, paths));
  copyFileSync(join(import.meta.dirname, "library-loader.js"), join(folder, "load.js"));
  const { modules, script } = await import(pathToFileURL(join(folder, "load.js")));
  for (const path of files) {
    mkdirSync(dirname(join(to, path)), { recursive: true });
    rmSync(join(to, path), { force: true });
    if (standsAlone(path)) continue;
    const loader = `${path.includes("/") ? "../".repeat(path.split("/").length - 1) : "./"}library/load.js`;
    writeFileSync(join(to, path), exportsOf(path, Object.keys(modules[path]), loader));
  }
  await bundleCommands(join(from, "cli"), join(to, "cli"), modules);
  await warm(modules["index.js"]);
  writeFileSync(join(folder, "library.cache"), script.createCachedData());
}
