import { readFileSync } from 'node:fs';
import { installedPackages } from './installed-packages.ts';
import { parseJson, readRuntimes, type Runtime, type RuntimeTable } from './runtimes.ts';

export interface ImageRule {
  /** Compared with the image, its part after the registry, and its repository name; `*` stands for any text. */
  pattern: string;
  runtime: string;
}

export type ResolvedImage = { runtime: Runtime; refusal: null } | { runtime: null; refusal: string };

interface BuiltInRule {
  pattern: string;
  /** In order of preference: the first that was made is taken. */
  runtimes: readonly string[];
  /** What the image has beyond its framework, and the option of `trainyard setup` that brings it. */
  needs?: { distribution: string; setup: string };
}

/** The last minor version with `tf.estimator` and Keras 2. */
const LAST_LEGACY_TENSORFLOW = 15;
const TRANSFORMERS = { distribution: 'transformers', setup: '--runtime pytorch --with huggingface' };

const rules = (runtimes: string[], patterns: string[]): BuiltInRule[] =>
  patterns.map((pattern) => ({ pattern, runtimes }));

/** Training images by their framework; inference and other special builds need the operator's word. */
const BUILT_IN_RULES: readonly BuiltInRule[] = [
  ...rules(
    ['pytorch'],
    [
      'pytorch-training',
      'pytorch',
      'sagemaker-pytorch',
      'sagemaker-pytorch-training',
      'smdistributed-modelparallel',
    ],
  ),
  { pattern: 'huggingface-pytorch-training', runtimes: ['pytorch'], needs: TRANSFORMERS },
  ...rules(
    ['tensorflow-2.15', 'tensorflow'],
    [
      'tensorflow-training:1.*',
      ...Array.from({ length: LAST_LEGACY_TENSORFLOW + 1 }, (_, minor) => [
        `tensorflow-training:2.${minor}.*`,
        `tensorflow-training:2.${minor}-*`,
      ]).flat(),
      'sagemaker-tensorflow',
      'sagemaker-tensorflow-scriptmode',
    ],
  ),
  ...rules(['tensorflow'], ['tensorflow-training', 'tensorflow']),
  ...rules(['mxnet'], ['mxnet-training', 'mxnet', 'sagemaker-mxnet', 'sagemaker-mxnet-training']),
  ...rules(
    ['xla'],
    ['pytorch-training-neuronx', 'pytorch-training-neuron', 'huggingface-pytorch-training-neuronx'],
  ),
];

/**
 * Finds the runtime for a training image: the operator's rules in their order, then the built-in ones. An image
 * without a rule, or whose runtime is missing, is refused with the line to add; it never runs somewhere else.
 */
export function resolveImage(image: string, table: RuntimeTable): ResolvedImage {
  let rule: BuiltInRule | undefined;
  try {
    const own = readImageRules(table.configPath).map(({ pattern, runtime }) => ({
      pattern,
      runtimes: [runtime],
    }));
    rule = [...own, ...BUILT_IN_RULES].find(({ pattern }) => matchesImage(pattern, image));
  } catch (error) {
    return refuse((error as Error).message);
  }
  const { runtimes, problems } = readRuntimes(table);
  const known = [...runtimes.keys()];
  if (rule === undefined) {
    const likely = runtimes.has('pytorch') ? 'pytorch' : (known[0] ?? 'NAME');
    const line = JSON.stringify({ pattern: repositoryOf(image), runtime: likely });
    return refuse(
      `AlgorithmSpecification.TrainingImage is ${image}, for which this machine has no runtime. ` +
        `To name one, add ${line} to "images" in ${table.configPath}; ` +
        (known.length > 0 ? `runtimes here: ${known.join(', ')}.` : `make one first with: trainyard setup`),
    );
  }
  const name = rule.runtimes.find((each) => runtimes.has(each)) ?? rule.runtimes[0]!;
  const runtime = runtimes.get(name);
  if (runtime === undefined) {
    return refuse(
      `AlgorithmSpecification.TrainingImage is ${image}, which runs in the runtime "${name}", and ${table.directory} ` +
        `has none of that name (${known.length > 0 ? `it has ${known.join(', ')}` : 'it has no runtime'}). ` +
        `Make it with: trainyard setup --runtime ${name}` +
        (problems.length > 0 ? `. ${problems.join(' ')}` : ''),
    );
  }
  const packages = rule.needs && installedPackages(runtime.python);
  if (rule.needs && packages && !packages.has(rule.needs.distribution)) {
    return refuse(
      `AlgorithmSpecification.TrainingImage is ${image}, which has ${rule.needs.distribution}; the runtime "${name}" has none. ` +
        `Add it with: trainyard setup ${rule.needs.setup}`,
    );
  }
  return { runtime, refusal: null };
}

/** @throws Error naming the file and the entry when `images` is not a list of `{ pattern, runtime }`. */
export function readImageRules(configPath: string): ImageRule[] {
  let text: string;
  try {
    text = readFileSync(configPath, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new Error(`${configPath} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  const images: unknown = parseJson(configPath, text)['images'] ?? [];
  if (!Array.isArray(images))
    throw new Error(`${configPath}: "images" must be a list of {"pattern", "runtime"}`);
  return images.map((rule: unknown, index) => {
    const { pattern, runtime } = (rule ?? {}) as Partial<ImageRule>;
    if (typeof pattern === 'string' && pattern !== '' && typeof runtime === 'string' && runtime !== '') {
      return { pattern, runtime };
    }
    throw new Error(
      `${configPath}: images[${index}] is ${JSON.stringify(rule)}; it needs "pattern" and "runtime", both non-empty text`,
    );
  });
}

/** True when the pattern covers the whole image, the image without its registry, or its repository's last name. */
export function matchesImage(pattern: string, image: string): boolean {
  const glob = new RegExp(`^${pattern.split('*').map(escapeRegExp).join('.*')}$`, 's');
  const withoutRegistry = image.slice(image.lastIndexOf('/') + 1);
  return [image, withoutRegistry, repositoryOf(image)].some((text) => glob.test(text));
}

/** `763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.3.0-cpu` → `pytorch-training`. */
function repositoryOf(image: string): string {
  return image.slice(image.lastIndexOf('/') + 1).replace(/[:@].*$/s, '');
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

function refuse(refusal: string): ResolvedImage {
  return { runtime: null, refusal };
}
