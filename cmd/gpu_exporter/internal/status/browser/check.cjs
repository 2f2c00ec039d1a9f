// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Opens a status page in Chromium and prints what it finds as JSON. The first argument is a JSON
// object: url, chromium (path), views (name, width, height, scheme, picture), and refresh, which
// adds the checks that take as long as a refresh.
const {chromium} = require('playwright-core');

async function check(browser, job, view) {
  const context = await browser.newContext({
    viewport: {width: view.width, height: view.height}, colorScheme: view.scheme, deviceScaleFactor: view.scale || 1,
  });
  const page = await context.newPage();
  const found = {name: view.name, errors: [], requests: []};
  page.on('console', message => found.errors.push(message.text()));
  page.on('pageerror', error => found.errors.push(error.message));
  page.on('dialog', dialog => { found.errors.push('dialog: ' + dialog.message()); dialog.dismiss(); });
  page.on('request', request => found.requests.push(request.url()));
  await page.goto(job.url, {waitUntil: 'load'});
  await page.evaluate(() => { for (const d of document.querySelectorAll('details')) d.open = true; });
  Object.assign(found, await page.evaluate(() => ({
    overflow: document.documentElement.scrollWidth - innerWidth,
    wide: [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length,
    text: document.body.innerText,
    title: document.title,
    background: getComputedStyle(document.body).backgroundColor,
    color: getComputedStyle(document.body).color,
    scripts: document.scripts.length,
    foreign: document.querySelectorAll('main script, main img, main iframe, main style, main [onerror], main [onclick], main [style]').length,
    gpus: document.querySelectorAll('tr.gpu').length,
    instances: document.querySelectorAll('tr.instance').length,
  })));
  if (view.picture) {
    await page.evaluate(() => { for (const d of document.querySelectorAll('details')) d.open = false; });
    await page.screenshot({path: view.picture});
  }
  if (job.refresh) await checkRefresh(page, job, found);
  await context.close();
  return found;
}

// checkRefresh waits for a refresh, which keeps open details, and for the note that the
// exporter does not answer.
async function checkRefresh(page, job, found) {
  const time = 300000;
  await page.evaluate(() => {
    document.querySelector('main').dataset.old = 'yes';
    for (const d of document.querySelectorAll('details')) d.open = d.id === 'settings';
  });
  await page.waitForFunction(() => !document.querySelector('main').dataset.old, null, {timeout: time});
  found.open = await page.evaluate(() => [...document.querySelectorAll('details[open]')].map(d => d.id).join());
  await page.route('**/*', route => route.abort());
  const before = found.errors.length;
  await page.waitForFunction(() => !document.getElementById('offline').hidden, null, {timeout: time});
  found.offline = await page.evaluate(() => document.getElementById('offline').innerText);
  await page.unroute('**/*');
  await page.waitForFunction(() => document.getElementById('offline').hidden, null, {timeout: time});
  found.errors.length = before; // Chromium logs the aborted requests
}

(async () => {
  const job = JSON.parse(process.argv[2]);
  const browser = await chromium.launch({executablePath: job.chromium, args: ['--no-sandbox', '--disable-dev-shm-usage']});
  const all = [];
  for (const view of job.views) all.push(await check(browser, job, view));
  await browser.close();
  console.log(JSON.stringify(all));
})().catch(error => { console.error(error); process.exit(1); });
