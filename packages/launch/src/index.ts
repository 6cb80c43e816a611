export { VARIABLES, type Variable } from './environment.ts';
export { LAUNCHER_VARIABLES } from './launchers/launcher.ts';
