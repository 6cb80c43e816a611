import { expect, test } from 'vitest';
import { splitTagged } from './mpi-tags.ts';

const hostOfRank = (rank: number): string => (rank < 2 ? 'algo-1' : 'algo-2');

test('a tag of Open MPI 4.1 takes the form of AWS’s toolkit', () => {
  expect(splitTagged('[1,2]<stderr>:  indented', 'stdout', { hostOfRank, mpiMajor: 4 })).toEqual([
    { rank: 2, source: 'stderr', message: '[1,mpirank:2,algo-2]<stderr>:  indented', text: '  indented' },
  ]);
});

test('Open MPI 5 puts a blank behind its tag, which is not the script’s', () => {
  expect(splitTagged('[1,0]<stdout>:   two', 'stdout', { hostOfRank, mpiMajor: 5 })[0]).toMatchObject({
    message: '[1,mpirank:0,algo-1]<stdout>:  two',
  });
});

test('ranks that wrote without a newline are taken apart', () => {
  expect(splitTagged('[1,0]<stdout>: ab[1,3]<stdout>: cd', 'stdout', { hostOfRank, mpiMajor: 5 })).toEqual([
    { rank: 0, source: 'stdout', message: '[1,mpirank:0,algo-1]<stdout>:ab', text: 'ab' },
    { rank: 3, source: 'stdout', message: '[1,mpirank:3,algo-2]<stdout>:cd', text: 'cd' },
  ]);
});

test('mpirun’s own words stay as they are', () => {
  const line = ' Data for JOB prterun-vm-1@1 offset 0';
  expect(splitTagged(line, 'stdout', { hostOfRank, mpiMajor: 5 })).toEqual([
    { rank: null, source: 'stdout', message: line, text: line },
  ]);
});
