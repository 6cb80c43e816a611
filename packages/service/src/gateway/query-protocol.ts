import { createHash } from 'node:crypto';
import { type ArnScope, escapeXml, queryError, roleArn } from '@trainyard/api';
import { sendXml } from './answers.ts';
import { authenticate } from './authenticate.ts';
import type { Call } from './call.ts';
import type { GatewayDeps } from './deps.ts';
import { authorize } from './policy.ts';
import type { Principal } from './principal.ts';
import { principalArn, roleOf } from './principal.ts';

const BODY_LIMIT_BYTES = 1 << 20;

interface QueryService {
  version: string;
  namespace: string;
  /** Each makes the XML inside `<ActionResult>`. */
  operations: Readonly<
    Record<string, (form: URLSearchParams, caller: Principal, account: ArnScope) => string>
  >;
}

/** By signing name. */
const QUERY_SERVICES: Readonly<Record<string, QueryService>> = {
  sts: {
    version: '2011-06-15',
    namespace: 'https://sts.amazonaws.com/doc/2011-06-15/',
    operations: { GetCallerIdentity: getCallerIdentity },
  },
  iam: {
    version: '2010-05-08',
    namespace: 'https://iam.amazonaws.com/doc/2010-05-08/',
    operations: { GetRole: getRole, SimulatePrincipalPolicy: simulatePrincipalPolicy },
  },
};

/** One call of the query protocol: a form in, XML out. */
export async function answerQuery(call: Call, deps: GatewayDeps): Promise<void> {
  const { body, principal, service } = await authenticate(call, deps, {
    services: Object.keys(QUERY_SERVICES),
    form: 'query',
    bodyLimitBytes: BODY_LIMIT_BYTES,
  });
  const { namespace, operations, version } = QUERY_SERVICES[service] as QueryService;
  const form = new URLSearchParams(body.toString());
  const operation = form.get('Action');
  if (operation === null) throw queryError('MissingAction');
  authorize(principal, `${service}:${operation}`, {}, { account: deps.account, form: 'query' });
  const sent = form.get('Version') ?? version;
  const handler =
    sent === version && Object.hasOwn(operations, operation) ? operations[operation] : undefined;
  if (handler === undefined) throw queryError('InvalidAction', { operation, version: sent });
  const result = handler(form, principal, deps.account);
  sendXml(
    call.response,
    200,
    `<${operation}Response xmlns="${namespace}"><${operation}Result>${result}</${operation}Result>` +
      `<ResponseMetadata><RequestId>${call.requestId}</RequestId></ResponseMetadata></${operation}Response>\n`,
  );
}

function getCallerIdentity(_form: URLSearchParams, caller: Principal, account: ArnScope): string {
  const { role, session } = roleOf(caller);
  return (
    element('Arn', principalArn(caller, account)) +
    element('UserId', `${roleId(role)}:${session}`) +
    element('Account', account.accountId)
  );
}

/**
 * Roles are not kept here: a job may name any, and each trusts SageMaker. That is what SageMaker's SDK v3 asks
 * before it lets anybody build a trainer.
 */
function getRole(form: URLSearchParams, _caller: Principal, account: ArnScope): string {
  const name = form.get('RoleName') ?? '';
  if (!/^[\w+=,.@-]{1,64}$/.test(name)) {
    throw queryError('ValidationError', {
      message: `RoleName is '${name}'; it must have 1 to 64 characters of letters, digits and +=,.@_-`,
    });
  }
  const trust = JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      { Effect: 'Allow', Principal: { Service: 'sagemaker.amazonaws.com' }, Action: 'sts:AssumeRole' },
    ],
  });
  const fields = {
    Path: '/',
    RoleName: name,
    RoleId: roleId(name),
    Arn: roleArn(account, name),
    // A role is as old as its name.
    CreateDate: '1970-01-01T00:00:00Z',
    AssumeRolePolicyDocument: encodeURIComponent(trust),
  };
  return `<Role>${Object.entries(fields)
    .map(([tag, text]) => element(tag, text))
    .join('')}</Role>`;
}

/** Every role may do everything that is served: what a key may do is decided where it is used. */
function simulatePrincipalPolicy(form: URLSearchParams): string {
  const resources = members(form, 'ResourceArns');
  const results = members(form, 'ActionNames').flatMap((action) =>
    (resources.length > 0 ? resources : ['*']).map(
      (resource) =>
        `<member>${element('EvalActionName', action)}${element('EvalResourceName', resource)}${element('EvalDecision', 'allowed')}</member>`,
    ),
  );
  return `<EvaluationResults>${results.join('')}</EvaluationResults><IsTruncated>false</IsTruncated>`;
}

/** `Name.member.1`, `Name.member.2`… */
function members(form: URLSearchParams, name: string): string[] {
  const values: string[] = [];
  for (let value = form.get(`${name}.member.1`); value !== null; ) {
    values.push(value);
    value = form.get(`${name}.member.${values.length + 1}`);
  }
  return values;
}

const element = (tag: string, text: string): string => `<${tag}>${escapeXml(text)}</${tag}>`;

/** The form of an IAM id, the same for a name at every call. */
function roleId(name: string): string {
  const digits = createHash('sha256').update(name).digest('hex').toUpperCase();
  return `AROA${digits.slice(0, 17)}`;
}
