// Whole lives of jobs in BullMQ: node main.mjs redis://… JOBS
import { Queue, Worker } from 'bullmq';

const BATCH = 500;
const CONCURRENCY = 100;
const [url, count] = process.argv.slice(2);
const jobs = Number(count);
const { hostname: host, port } = new URL(url);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };

const queue = new Queue('bench', { connection });
const worker = new Worker('bench', async () => 'ok', { connection, concurrency: CONCURRENCY });
await Promise.all([queue.waitUntilReady(), worker.waitUntilReady()]);

let completed = 0;
const payload = 'x'.repeat(200);
const start = performance.now();
const finished = new Promise((resolve, reject) => {
  worker.on('completed', () => ++completed === jobs && resolve());
  worker.on('failed', (_, error) => reject(error));
});
for (let first = 0; first < jobs; first += BATCH) {
  const length = Math.min(BATCH, jobs - first);
  await queue.addBulk(Array.from({ length }, () => ({ name: 'bench', data: payload })));
}
await finished;
const seconds = (performance.now() - start) / 1000;

console.log(JSON.stringify({ jobs, seconds, completed: await queue.getCompletedCount() }));
await worker.close();
await queue.close();
