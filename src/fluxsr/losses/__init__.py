"""The paper's losses: tensors in, scalar out. They know no model of ours."""
