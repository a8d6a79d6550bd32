import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { defineConfig } from "vite";

/** Packs what packs well: the app sends files as they lie there. */
function packed() {
  return {
    name: "packed",
    apply: "build",
    writeBundle({ dir }) {
      const names = readdirSync(dir, { recursive: true });
      for (const name of names.filter((one) => /\.(js|css|wasm|svg|html)$/.test(one))) {
        const path = join(dir, name);
        writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  base: "/api/review/",
  plugins: [packed()],
  logLevel: "warn",
  build: {
    target: "es2023",
    // Small files stay files: the page's Content-Security-Policy has no data: address but images.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // Cornerstone and vtk.js are most of it, and the page is of no use without them.
    chunkSizeWarningLimit: 4000,
    rolldownOptions: {
      onLog(level, log, handler) {
        // The codecs name Node's modules for Node; in a browser they do without.
        if (!/externalized for browser compatibility|PLUGIN_TIMINGS/.test(log.message)) handler(level, log);
      },
    },
  },
  worker: { format: "es" },
});
