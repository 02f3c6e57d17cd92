"""The operations that a served model may be made of. Whatever is not here is refused.

They compute on what they are given: none reads or writes a file, opens a connection, calls Python, prints, waits, or
changes a variable. Operations of TensorFlow that are not here are not all dangerous; they are not needed to serve.
"""

from __future__ import annotations

_CALLS = """
Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile While
"""

_STRUCTURE = """
Assert Const DisableCopyOnRead EnsureShape Fill GuaranteeConst Identity IdentityN NoOp OnesLike Placeholder
PlaceholderWithDefault PreventGradient Rank ReadVariableOp ResourceGather ResourceGatherNd Shape ShapeN Size Snapshot
StopGradient VarHandleOp VarIsInitializedOp VariableShape ZerosLike
"""

_TABLES = """
HashTableV2 LookupTableFindV2 LookupTableImportV2 LookupTableSizeV2
"""

_SHAPES = """
BatchToSpaceND BroadcastArgs BroadcastTo Concat ConcatOffset ConcatV2 DepthToSpace DynamicPartition DynamicStitch
ExpandDims ExtractImagePatches Gather GatherNd GatherV2 InvertPermutation LinSpace ListDiff LowerBound MatrixBandPart
MatrixDiagPartV3 MatrixDiagV3 MatrixSetDiagV3 MirrorPad OneHot Pack Pad PadV2 ParallelDynamicStitch Range Reshape
ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor Reverse ReverseSequence ReverseV2 Roll ScatterNd Slice
SpaceToBatchND SpaceToDepth Split SplitV Squeeze StridedSlice TensorScatterAdd TensorScatterMax TensorScatterMin
TensorScatterSub TensorScatterUpdate Tile Transpose Unique UniqueV2 UniqueWithCounts Unpack UpperBound Where
"""

_MATHEMATICS = """
Abs Acos Acosh Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2 Atanh BatchMatMul
BatchMatMulV2 BatchMatMulV3 BesselI0e BesselI1e Betainc Bincount BitwiseAnd BitwiseOr BitwiseXor Bucketize Cast Ceil
CheckNumerics CheckNumericsV2 Cholesky ClipByValue Complex ComplexAbs Conj Cos Cosh Cross Cumprod Cumsum
CumulativeLogsumexp DenseBincount Digamma Div DivNoNan Einsum Equal Erf Erfc Erfinv Exp Expm1 FFT FFT2D FFT3D Floor
FloorDiv FloorMod Greater GreaterEqual HistogramFixedWidth IFFT IFFT2D IFFT3D IRFFT IRFFT2D IRFFT3D Igamma Igammac Imag
InTopKV2 Inv Invert IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma Log Log1p LogMatrixDeterminant LogicalAnd
LogicalNot LogicalOr MatMul MatrixDeterminant MatrixInverse MatrixSolve MatrixSolveLs MatrixTriangularSolve Max Maximum
Mean Min Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual Polygamma Pow Prod Qr RFFT RFFT2D RFFT3D Real RealDiv
Reciprocal RightShift Rint Round Rsqrt SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Select SelectV2
SelfAdjointEigV2 Sigmoid Sign Sin Sinh Sqrt Square SquaredDifference Sub Sum Svd Tan Tanh TopK TopKV2 TruncateDiv
TruncateMod UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Xdivy Xlog1py Xlogy Zeta
"""

_LAYERS = """
AvgPool AvgPool3D BiasAdd BiasAddV1 CombinedNonMaxSuppression Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2
CropAndResize CudnnRNNV3 DataFormatDimMap DataFormatVecPermute DepthwiseConv2dNative Dilation2D Elu FractionalAvgPool
FractionalMaxPool FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 FusedPadConv2D L2Loss LRN LeakyRelu LogSoftmax
MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NthElement
Relu Relu6 Selu Softmax SoftmaxCrossEntropyWithLogits Softplus Softsign SparseSoftmaxCrossEntropyWithLogits
AdjustContrastv2 AdjustHue AdjustSaturation HSVToRGB RGBToHSV
"""

_QUANTISED = """
Dequantize FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantizeV2
QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeV2
"""

_SPARSE_AND_RAGGED = """
RaggedGather RaggedRange RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToTensor RaggedTensorToVariant
SparseConcat SparseDenseCwiseAdd SparseDenseCwiseMul SparseFillEmptyRows SparseReduceSum SparseReorder SparseReshape
SparseSegmentMean SparseSegmentSqrtN SparseSegmentSum SparseSlice SparseSoftmax SparseSplit SparseTensorDenseAdd
SparseTensorDenseMatMul SparseToDense
"""

_LISTS = """
EmptyTensorList TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
TensorListLength TensorListPopBack TensorListPushBack TensorListReserve TensorListResize TensorListScatterV2
TensorListSetItem TensorListStack
"""

_TEXT = """
AsString DecodeBase64 DecodeRaw EncodeBase64 RegexFullMatch RegexReplace StaticRegexFullMatch StaticRegexReplace
StringFormat StringJoin StringLength StringLower StringNGrams StringSplit StringSplitV2 StringStrip StringToHashBucket
StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper Substr UnicodeDecode
UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode UnsortedSegmentJoin
"""

_RANDOM = """
Multinomial RandomStandardNormal RandomUniform RandomUniformInt StatelessMultinomial StatelessRandomGetAlg
StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
StatelessRandomUniform StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 StatelessRandomUniformInt
StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessTruncatedNormal StatelessTruncatedNormalV2
TruncatedNormal
"""

ALLOWED_OPS = frozenset(
    " ".join(
        [
            _CALLS,
            _STRUCTURE,
            _TABLES,
            _SHAPES,
            _MATHEMATICS,
            _LAYERS,
            _QUANTISED,
            _SPARSE_AND_RAGGED,
            _LISTS,
            _TEXT,
            _RANDOM,
        ]
    ).split()
)
"""Names of operations as TensorFlow registers them."""

_SAVER = """
AssignVariableOp Const DisableCopyOnRead Identity MergeV2Checkpoints NoOp Pack ReadVariableOp RestoreV2 SaveV2 Select
ShardedFilename StaticRegexFullMatch StringJoin
"""

SAVER_OPS = frozenset(_SAVER.split())
"""What the two functions that save and restore variables are made of; see `saver_functions`."""
