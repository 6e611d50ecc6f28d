import js from "@eslint/js";
import tseslint from "typescript-eslint";

// Sizes are the limits of docs/architecture.md: the soft ones warn, the hard ones fail.
const sizes = (lines, linesPerFunction) => ({
  "max-lines": ["error", { max: lines, skipBlankLines: false, skipComments: false }],
  "max-lines-per-function": ["error", { max: linesPerFunction, skipBlankLines: true }],
});

export default tseslint.config(
  { ignores: ["build*/**", "dist/**", "node_modules/**", "models/**", "coverage/**", "runs/**"] },
  js.configs.recommended,
  ...tseslint.configs.recommended,
  {
    files: ["lib/**/*.ts", "tests/**/*.ts", "benchmarks/**/*.ts", "examples/**/*.ts"],
    languageOptions: { parserOptions: { project: "./tsconfig.json" } },
    rules: {
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/switch-exhaustiveness-check": "error",
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/consistent-type-imports": "error",
      "max-params": ["error", 6],
      complexity: ["error", 25],
    },
  },
  { files: ["lib/**/*.ts"], rules: sizes(700, 60) },
  {
    files: ["**/*.mjs", "**/*.js"],
    languageOptions: {
      globals: {
        process: "readonly",
        console: "readonly",
        performance: "readonly",
        Buffer: "readonly",
      },
    },
  },
);
