/**
 * Registry accounts of AWS's training images: account by region.
 * https://github.com/aws/sagemaker-python-sdk/tree/v2.257.6/src/sagemaker/image_uri_config
 */
export type Registry = Readonly<Record<string, string>>;

const BASE_REGIONS = [
  ['ap-northeast-1', 'ap-northeast-2', 'ap-south-1', 'ap-southeast-1', 'ap-southeast-2', 'ca-central-1'],
  ['eu-central-1', 'eu-north-1', 'eu-west-1', 'eu-west-2', 'eu-west-3'],
  ['sa-east-1', 'us-east-1', 'us-east-2', 'us-west-1', 'us-west-2'],
].flat();

function accounts(base: string, others: Record<string, string>): Registry {
  return { ...Object.fromEntries(BASE_REGIONS.map((region) => [region, base])), ...others };
}

/** Of the current images (`pytorch-training` and the like). */
export const EVERYWHERE = accounts('763104351884', {
  'af-south-1': '626614931356',
  'ap-east-1': '871362719292',
  'ap-east-2': '975050140332',
  'ap-northeast-3': '364406365360',
  'ap-south-2': '772153158452',
  'ap-southeast-3': '907027046896',
  'ap-southeast-4': '457447274322',
  'ap-southeast-5': '550225433462',
  'ap-southeast-6': '633930458069',
  'ap-southeast-7': '590183813437',
  'ca-west-1': '204538143572',
  'cn-north-1': '727897471807',
  'cn-northwest-1': '727897471807',
  'eu-central-2': '380420809688',
  'eu-south-1': '692866216735',
  'eu-south-2': '503227376785',
  'il-central-1': '780543022126',
  'me-central-1': '914824155844',
  'me-south-1': '217643126080',
  'mx-central-1': '637423239942',
  'us-gov-east-1': '446045086412',
  'us-gov-west-1': '442386744353',
  'us-iso-east-1': '886529160074',
  'us-isob-east-1': '094389454867',
  'us-isof-east-1': '303241398832',
  'us-isof-south-1': '454834333376',
});

/** Of the oldest images (`sagemaker-pytorch` and the like). */
export const LEGACY = accounts('520713654638', {
  'af-south-1': '313743910680',
  'ap-east-1': '057415533634',
  'cn-north-1': '422961961927',
  'cn-northwest-1': '423003514399',
  'eu-south-1': '048378556238',
  'me-south-1': '724002660598',
  'us-gov-west-1': '246785580436',
  'us-iso-east-1': '744548109606',
  'us-isob-east-1': '453391408702',
});

function without(registry: Registry, regions: string): Registry {
  const missing = new Set(regions.split(' '));
  return Object.fromEntries(Object.entries(registry).filter(([region]) => !missing.has(region)));
}

const ISOF = 'us-isof-east-1 us-isof-south-1';
const ISO = `us-iso-east-1 us-isob-east-1 ${ISOF}`;
const NEWEST = 'ap-east-2 ap-southeast-5 ap-southeast-6 ap-southeast-7 mx-central-1';
const OPT_IN = 'ap-south-2 ap-southeast-4 eu-central-2 eu-south-2';

/** Images older than the newest isolated regions. */
export const WITHOUT_ISOF = without(EVERYWHERE, ISOF);
/** Images that no isolated region has. */
export const WITHOUT_ISO = without(EVERYWHERE, ISO);
/** Images that were not brought to the regions opened after them. */
export const WITHOUT_NEWEST = without(EVERYWHERE, `${NEWEST} ${ISOF}`);
/** Hugging Face from transformers 4.26. */
export const HUGGING_FACE = without(EVERYWHERE, `${NEWEST} ${OPT_IN} ${ISOF}`);

const NO_COMPILER = `${NEWEST} ap-southeast-3 me-central-1 cn-north-1 cn-northwest-1 us-gov-east-1 us-gov-west-1 ${ISO}`;
/** Training Compiler for PyTorch 1.12. */
export const COMPILER = without(EVERYWHERE, NO_COMPILER);
/** Training Compiler for PyTorch 1.13. */
export const COMPILER_LATER = without(EVERYWHERE, `${NO_COMPILER} ap-south-2 eu-central-2 eu-south-2`);
/** Training Compiler for Hugging Face. */
export const COMPILER_HUGGING_FACE = without(
  EVERYWHERE,
  `ap-southeast-6 cn-north-1 cn-northwest-1 us-gov-east-1 us-gov-west-1 ${ISO}`,
);
/** Training Compiler for transformers 4.11. */
export const COMPILER_FIRST = only('ca-west-1 eu-west-1 us-east-1 us-east-2 us-west-2');
/** Trainium. */
export const NEURON = only(
  'ap-northeast-1 ap-south-1 ap-south-2 ap-southeast-1 ap-southeast-2 ap-southeast-4 ca-west-1 eu-central-1 eu-central-2 eu-south-2 eu-west-1 eu-west-3 il-central-1 sa-east-1 us-east-1 us-east-2 us-west-2',
);

function only(regions: string): Registry {
  const kept = new Set(regions.split(' '));
  return Object.fromEntries(Object.entries(EVERYWHERE).filter(([region]) => kept.has(region)));
}

/** The model-parallel library's own images. */
export const MODEL_PARALLEL = accounts('658645717510', { 'ap-northeast-3': '658645717510' });

/** Where an image's name is only a label (outside AWS) a region that AWS does not have uses this account. */
export const LABEL_ACCOUNT = '763104351884';
