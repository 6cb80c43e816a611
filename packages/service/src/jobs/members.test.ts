import { readFileSync } from 'node:fs';
import { modelOf } from '@trainyard/api';
import { describe, expect, it } from 'vitest';
import { ignoredNotices, MEMBERS, treatmentOf } from './members.ts';

describe('the table of request members', () => {
  it('covers every member of CreateTrainingJob in the published model, and has none that the model lacks', () => {
    const { shapes, operations } = modelOf('sagemaker');
    const seen = new Set<string>();
    const visit = (shapeName: string, path: string): void => {
      const shape = shapes[shapeName]!;
      if (path !== '') {
        seen.add(path);
        expect(treatmentOf(path), path).toBeDefined();
      }
      if (shape.type === 'structure') {
        for (const [member, target] of Object.entries(shape.members ?? {}))
          visit(target, path === '' ? member : `${path}.${member}`);
      } else if (shape.type === 'list') visit(shape.member!, `${path}[]`);
    };
    visit(operations.CreateTrainingJob!.input!, '');
    expect(Object.keys(MEMBERS).filter((path) => !seen.has(path))).toEqual([]);
  });

  it('is the one that docs/compatibility.md prints', () => {
    const text = readFileSync(new URL('../../../../docs/compatibility.md', import.meta.url), 'utf8');
    const rows = [...text.matchAll(/^\| `([^`]+)` \| (honoured|ignored|refused) \| (.*) \|$/gm)].map(
      ([, path, treatment, note]) => [path, treatment, note],
    );
    expect(rows).toEqual(
      Object.entries(MEMBERS).map(([path, { treatment, note }]) => [path, treatment, note]),
    );
  });

  it('says what has no effect, but not for members that every SDK sends', () => {
    expect(
      ignoredNotices({
        ResourceConfig: { VolumeSizeInGB: 30, KeepAlivePeriodInSeconds: 60 },
        DebugHookConfig: { S3OutputPath: 's3://b' },
        EnableManagedSpotTraining: false,
      }),
    ).toEqual([
      'ResourceConfig.KeepAlivePeriodInSeconds has no effect here: hosts start in a fraction of a second; there is no warm pool.',
    ]);
  });
});
