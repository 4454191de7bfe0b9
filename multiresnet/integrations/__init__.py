"""Multi-ResNets as parts of other libraries, one module for each host. Importing the module registers what the host looks up.

| module | host | what it adds |
|---|---|---|
| `multiresnet.integrations.smp` | segmentation-models-pytorch | encoders `"haar"`, `"haar_ll"`, architecture `"multiresnet"` |
| `multiresnet.integrations.timm` | timm | models `haar_pyramid`, `haar_pyramid_ll`, `multiresnet_small` |
| `multiresnet.integrations.diffusers` | diffusers | `MultiResNet2DModel`, `MultiResNet2DConditionModel` |
| `multiresnet.integrations.monai` | MONAI | `MultiResNet`, backbones for `FlexibleUNet` |
| `multiresnet.integrations.pde` | The Well, neuraloperator, PDEArena | one wrapper for each calling convention |

Nothing in the package imports them, and `import multiresnet` imports none of the hosts.
"""
