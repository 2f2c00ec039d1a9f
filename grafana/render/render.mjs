// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// render.mjs PROMETHEUS VIEW OUT [VIEW OUT …] draws views of dashboards to PNG files.
// A view is a JSON file that the tests of package grafana write: a dashboard whose
// variables are replaced, with a time range and the step of each query.

import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import esbuild from 'esbuild';
import { chromium } from 'playwright-core';
import sharp from 'sharp';

const here = path.dirname(fileURLToPath(import.meta.url));
const maxBytes = 300 * 1024;
const width = 1400, height = 8000; // px; tables are only drawn if they are visible
const patience = 900_000; // ms; the machine may be busy

const page = `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/main.css">
<style>body{margin:0;font-family:"DejaVu Sans",sans-serif}</style>
<div id="root"></div><script type="module" src="/main.js"></script>`;

const types = { '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' };

async function bundle() {
  const result = await esbuild.build({
    entryPoints: [path.join(here, 'app/main.jsx')], bundle: true, minify: true, write: false, outdir: '/', format: 'esm', jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
    loader: { '.ttf': 'empty', '.woff': 'empty', '.woff2': 'empty', '.svg': 'dataurl', '.png': 'dataurl' }, logLevel: 'error',
  });
  return new Map(result.outputFiles.map((f) => [f.path, f.contents]));
}

// serve answers with the application, the current view, and the results of Prometheus.
function serve(files, prometheus, current) {
  const server = http.createServer(async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    const send = (status, type, body) => { response.writeHead(status, { 'content-type': type }); response.end(body); };
    try {
      if (url.pathname.startsWith('/api/')) {
        const answer = await fetch(prometheus + request.url);
        return send(answer.status, 'application/json', await answer.text());
      }
      if (url.pathname === '/') return send(200, 'text/html', page);
      if (url.pathname === '/view') return send(200, 'application/json', fs.readFileSync(current.view));
      const file = files.get(url.pathname);
      if (file) return send(200, types[path.extname(url.pathname)] ?? 'application/octet-stream', Buffer.from(file));
      const icon = url.pathname.match(/\/(img\/icons\/[\w/-]+\.svg)$/);
      const svg = icon && path.join(here, 'node_modules/@grafana/ui/dist/public', icon[1]);
      if (svg && fs.existsSync(svg)) return send(200, types['.svg'], fs.readFileSync(svg));
      send(404, 'text/plain', 'not found');
    } catch (error) {
      send(502, 'text/plain', String(error));
    }
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

// compress writes a PNG with a palette, with fewer colors if it is too large.
async function compress(png, out) {
  for (const colors of [256, 128, 64, 32]) {
    await sharp(png).png({ palette: true, colors, effort: 10, compressionLevel: 9, dither: 0 }).toFile(out);
    if (fs.statSync(out).size <= maxBytes) return;
  }
  throw new Error(`${out} has ${fs.statSync(out).size} bytes, more than ${maxBytes}: draw fewer panels`);
}

async function draw(browser, url, view, out) {
  const tab = await browser.newPage({ viewport: { width, height } });
  const complaints = [];
  const failed = new Promise((_, reject) => tab.on('pageerror', reject));
  failed.catch(() => {});
  tab.on('console', (message) => {
    if (process.env.RENDER_DEBUG) console.error(`${message.type()}: ${message.text().slice(0, 500)}`);
  });
  await tab.goto(url, { waitUntil: 'commit', timeout: patience });
  await Promise.race([failed, tab.waitForFunction(() => document.body?.dataset.ready === 'yes', undefined, { timeout: patience })]);
  const panels = await tab.$$eval('[data-panel]', (nodes) => nodes.map((n) => ({ ...n.dataset })));
  await compress(await tab.locator('#root > div').screenshot({ timeout: patience }), out);
  await tab.close();
  for (const p of panels) if (p.state === 'error') complaints.push(`panel "${p.panel}": ${p.message}`);
  const empty = panels.filter((p) => p.state === 'empty').map((p) => p.panel);
  console.log(`${path.relative(process.cwd(), out)}: ${panels.length} panels, ${fs.statSync(out).size} bytes` +
    (empty.length ? `, empty: ${empty.join('; ')}` : ''));
  for (const c of complaints) console.error(`${view}: ${c}`);
  return complaints.length;
}

const [prometheus, ...pairs] = process.argv.slice(2);
if (!prometheus || pairs.length < 2 || pairs.length % 2) {
  console.error('usage: render.mjs PROMETHEUS VIEW OUT [VIEW OUT …]');
  process.exit(2);
}
const current = {};
const server = await serve(await bundle(), prometheus, current);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'], timeout: patience,
});
let failures = 0;
try {
  for (let i = 0; i < pairs.length; i += 2) {
    current.view = pairs[i];
    try {
      failures += await draw(browser, `http://127.0.0.1:${server.address().port}/`, pairs[i], pairs[i + 1]);
    } catch (error) { // the others can still be drawn
      console.error(`${pairs[i]}: ${error.message}`);
      failures++;
    }
  }
} finally {
  await browser.close();
  server.close();
}
process.exitCode = failures ? 1 : 0;
