"""Writes the variables that a script sees to `sm_training.env`: names and values of SageMaker's Python SDK 3."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common.utils import (  # noqa: E402
    DATA_DIR,
    DRIVERS_DIR,
    ENVIRONMENT_FILE,
    FAILURE_FILE,
    INPUT_DIR,
    ML_DIR,
    OUTPUT_DIR,
    from_text,
    on_trainyard,
    read_json,
    to_text,
)

CONFIG_DIR = os.path.join(INPUT_DIR, 'config')
SOURCE_DIR = os.path.join(DATA_DIR, 'code')
MASTER_PORT = 7777


def output_of(*command):
    """What a program prints, nothing when it is not there or fails."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return ''


def count_gpus():
    return sum(line.startswith('GPU ') for line in output_of('nvidia-smi', '--list-gpus').splitlines())


def count_neuron_cores():
    devices = from_text(output_of('neuron-ls', '-j'))
    return sum(device.get('nc_count', 0) for device in devices) if isinstance(devices, list) else 0


def make_environment():
    resources = read_json(CONFIG_DIR, 'resourceconfig.json')
    inputs = read_json(CONFIG_DIR, 'inputdataconfig.json')
    hyperparameters = {
        key: from_text(value) for key, value in read_json(CONFIG_DIR, 'hyperparameters.json').items()
    }
    hosts = sorted(resources['hosts'])
    variables = {
        'SM_MODEL_DIR': os.path.join(ML_DIR, 'model'),
        'SM_INPUT_DIR': INPUT_DIR,
        'SM_INPUT_DATA_DIR': DATA_DIR,
        'SM_INPUT_CONFIG_DIR': CONFIG_DIR,
        'SM_OUTPUT_DIR': OUTPUT_DIR,
        'SM_OUTPUT_FAILURE': FAILURE_FILE,
        'SM_OUTPUT_DATA_DIR': os.path.join(OUTPUT_DIR, 'data'),
        'SM_LOG_LEVEL': int(os.environ.get('SM_LOG_LEVEL', 20)),
        **master_of(hosts),
    }
    source_code = read_json(DRIVERS_DIR, 'sourcecode.json')
    variables['SM_SOURCE_DIR'] = SOURCE_DIR
    variables['SM_ENTRY_SCRIPT'] = source_code.get('entry_script')
    distributed = read_json(DRIVERS_DIR, 'distributed.json')
    if distributed:
        variables['SM_DISTRIBUTED_DRIVER_DIR'] = os.path.join(DRIVERS_DIR, 'distributed_drivers')
        variables['SM_DISTRIBUTED_CONFIG'] = distributed
    for channel in inputs:
        variables['SM_CHANNEL_' + channel.upper()] = os.path.join(DATA_DIR, channel)
    variables['SM_CHANNELS'] = list(inputs)
    for key, value in hyperparameters.items():
        variables['SM_HP_' + key.upper().replace('-', '_')] = value
    variables.update(
        SM_HPS=hyperparameters,
        SM_CURRENT_HOST=resources['current_host'],
        SM_CURRENT_INSTANCE_TYPE=resources['current_instance_type'],
        SM_HOSTS=hosts,
        SM_NETWORK_INTERFACE_NAME=resources['network_interface_name'],
        SM_HOST_COUNT=len(hosts),
        SM_CURRENT_HOST_RANK=hosts.index(resources['current_host']),
        SM_NUM_CPUS=os.cpu_count(),
        SM_NUM_GPUS=count_gpus(),
        SM_NUM_NEURONS=count_neuron_cores(),
        SM_RESOURCE_CONFIG=resources,
        SM_INPUT_DATA_CONFIG=inputs,
    )
    variables['SM_TRAINING_ENV'] = training_environment(variables, inputs)
    return variables


def master_of(hosts):
    """Where ranks meet. Trainyard's hosts may share one network, and then the agent chose address and port."""
    address, port = hosts[0], MASTER_PORT
    if on_trainyard():
        address = os.environ.get('MASTER_ADDR', address)
        port = int(os.environ.get('MASTER_PORT', port))
    return {'SM_MASTER_ADDR': address, 'SM_MASTER_PORT': port}


def training_environment(variables, inputs):
    def of(name):
        return variables['SM_' + name.upper()]

    return {
        'channel_input_dirs': {channel: of('channel_' + channel) for channel in inputs},
        'current_host': of('current_host'),
        'current_instance_type': of('current_instance_type'),
        'hosts': of('hosts'),
        'master_addr': of('master_addr'),
        'master_port': of('master_port'),
        'hyperparameters': of('hps'),
        'input_data_config': inputs,
        'input_config_dir': of('input_config_dir'),
        'input_data_dir': of('input_data_dir'),
        'input_dir': of('input_dir'),
        'job_name': os.environ['TRAINING_JOB_NAME'],
        'log_level': of('log_level'),
        'model_dir': of('model_dir'),
        'network_interface_name': of('network_interface_name'),
        'num_cpus': of('num_cpus'),
        'num_gpus': of('num_gpus'),
        'num_neurons': of('num_neurons'),
        'output_data_dir': of('output_data_dir'),
        'resource_config': of('resource_config'),
    }


def quote(text):
    """For a shell: the closing quote, a quoted one, and the next opening quote."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def main():
    with open(ENVIRONMENT_FILE, 'w', encoding='utf-8') as file:
        for name, value in make_environment().items():
            # A shell takes no other names; the channel is still in SM_CHANNELS, the hyperparameter in SM_HPS.
            if name.replace('_', 'a').isalnum() and name.isascii():
                file.write('export %s=%s\n' % (name, quote(to_text(value))))


if __name__ == '__main__':
    main()
