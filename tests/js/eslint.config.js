// The page's JavaScript is held to what ruff and mypy ask of the Python. Run from the repository's root: `make lint-js`.
import js from "@eslint/js";
import globals from "globals";
import { bareText } from "./visible.js";

const RULES = {
  ...js.configs.recommended.rules,
  "array-callback-return": "error",
  complexity: ["error", 12],
  "consistent-return": "error",
  "default-case-last": "error",
  eqeqeq: "error",
  "max-depth": ["error", 4],
  "max-lines": ["error", 700],
  "max-params": ["error", 5],
  "no-await-in-loop": "off",
  "no-eval": "error",
  "no-implicit-globals": "error",
  "no-implied-eval": "error",
  "no-new-func": "error",
  "no-param-reassign": "error",
  "no-restricted-globals": ["error", "event", "name", "status", "top", "parent", "length", "origin", "external", "find", "stop", "open", "close", "print"],
  "no-self-compare": "error",
  "no-shadow": "error",
  "no-throw-literal": "error",
  "no-undef": "error",
  "no-unused-vars": ["error", { argsIgnorePattern: "^_", ignoreRestSiblings: true }],
  "no-use-before-define": ["error", { functions: false, classes: false, variables: false }],
  "no-var": "error",
  "object-shorthand": "error",
  "prefer-const": "error",
  "prefer-promise-reject-errors": "error",
  "require-atomic-updates": "off",
};

export default [
  { ignores: ["**/vendor/**", "**/node_modules/**", ".venv/**", ".cache/**", "build/**"] },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  {
    files: ["jmt_edge/**/*.js"],
    languageOptions: { ecmaVersion: 2023, sourceType: "module", globals: globals.browser },
    plugins: { page: { rules: { "bare-text": bareText } } },
    rules: { ...RULES, "page/bare-text": "error" },
  },
  {
    files: ["tests/page/*.js"], // what tests run in the page
    languageOptions: { ecmaVersion: 2023, sourceType: "script", globals: globals.browser },
    rules: { ...RULES, "no-unused-expressions": "off", complexity: "off" },
  },
  {
    files: ["tests/js/**/*.js"],
    languageOptions: { ecmaVersion: 2023, sourceType: "module", globals: { ...globals.node, ...globals.browser } },
    rules: RULES,
  },
];
