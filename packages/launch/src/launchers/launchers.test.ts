import { launcherContract } from './launcher.contract.ts';
import { mpirun, smddp } from './mpirun.ts';
import { mxnetServers } from './mxnet.ts';
import { container, single } from './single.ts';
import { multiWorker, tensorflowServers } from './tensorflow.ts';
import { torchrun } from './torchrun.ts';

launcherContract('the script alone', single);
launcherContract('a command of the job’s own', container, { containerCommand: ['/bin/bash', '-c', 'true'] });
launcherContract('torchrun', torchrun);
launcherContract('mpirun of Open MPI 5', mpirun);
launcherContract('mpirun of Open MPI 4.1', mpirun, { mpi: { major: 4, hasMpi4py: true } });
launcherContract('smddp', smddp);
launcherContract('TensorFlow’s parameter servers', tensorflowServers, { hasLegacyKeras: true });
launcherContract('MultiWorkerMirrored', multiWorker);
launcherContract('MXNet’s parameter servers', mxnetServers());
launcherContract('MXNet’s parameter servers under mpirun', mxnetServers(mpirun));
