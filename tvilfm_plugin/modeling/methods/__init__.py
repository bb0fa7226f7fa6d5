"""Further methods of the field as registered parts: AGW, CAJ, DEEN, YYDS, MMN and DDAG (`docs/methods.md`).

Where what is:

- `losses`: `squared_difference`, `channel_kl` (CAJ), `centre_pair`, `orthogonality` (DEEN), `centre_distance` (MMN);
  the hard triplet and WRT are in `modeling.losses`.
- `text_losses`: `text_alignment`, `alignment_kl`, `overlap_targets`, `colour_phrases` (YYDS).
- `attention`: `ChannelAttention`, `SpatialAttention`, `MultiLevelAttention` (DEEN's MFA), `Expansion` (DEEN's DEE).
- `deen`: `DEENTrunk`, `BranchHead`; `yyds`: `JointRelation`, `RobertaSentence`, `Projection`; `mmn`: `MiddleImages`, stripes;
  `ddag`: `WeightedParts`, `CrossModalGraph`.

AGW is fast-reid's ResNet with MODEL.BACKBONE.WITH_NL; CAJ is AGW's network with other views and another loss.
"""
