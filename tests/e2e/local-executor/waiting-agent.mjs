// Stands where the agent stands: notes its start, stays, and exits 0 on SIGUSR2.
import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const { stateDir } = JSON.parse(readFileSync(process.argv[2] === '-' ? 0 : process.argv[2], 'utf8'));
process.on('SIGUSR2', () => process.exit(0));
setInterval(() => {}, 1_000_000);
appendFileSync(join(stateDir, 'agent-starts'), `${process.pid}\n`);
