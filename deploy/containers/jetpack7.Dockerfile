# jmt-edge live on JetPack 7, Thor, with TensorRT and CUDA graphs. On the board, from a checkout:
#   docker build -f deploy/containers/jetpack7.Dockerfile -t jmt-edge:jetpack7 .
# Not built or run on a board yet.
