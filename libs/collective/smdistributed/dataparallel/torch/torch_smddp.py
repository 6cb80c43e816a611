"""`import smdistributed.dataparallel.torch.torch_smddp` registers the backend
`smddp` with torch.distributed. Nothing else is needed:

    import torch.distributed as dist
    import smdistributed.dataparallel.torch.torch_smddp

    dist.init_process_group(backend="smddp")
"""

import trainyard_collective

trainyard_collective.register()
